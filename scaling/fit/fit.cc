#include "scaling/fit/fit.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "scaling/fit/minimize.h"
#include "tensor/check.h"

namespace tessera {
namespace {

// The best starts that are not each other's neighbours in the grid: half by rank, half spread over the rest.
std::vector<size_t> choose(size_t available, size_t wanted) {
  std::vector<size_t> chosen;
  const size_t best = std::min(available, (wanted + 1) / 2);
  for (size_t i = 0; i < best; ++i) chosen.push_back(i);
  const size_t rest = std::min(available - best, wanted - best);
  for (size_t i = 0; i < rest; ++i) chosen.push_back(best + i * (available - best) / rest);
  return chosen;
}

}  // namespace

Fit fit(const Form& form, std::span<const Sample> samples, const FitOptions& options) {
  if (samples.size() < form.size())
    throw DataError(fmt::format("{} runs: the form {} has {} constants and needs at least as many runs", samples.size(),
                                form.name(), form.size()));
  const Regression rows = regression(form, samples, options.delta);
  const std::vector<Theta> starts = form.starts(samples);
  std::vector<Minimum> minima;
  for (size_t start : choose(starts.size(), static_cast<size_t>(options.polished_starts)))
    minima.push_back(minimize(rows, starts[start]));
  const auto best = std::min_element(minima.begin(), minima.end(),
                                     [](const Minimum& a, const Minimum& b) { return a.value < b.value; });
  Fit result{best->x, best->value, best->converged, static_cast<int>(starts.size()), 0};
  for (const Minimum& minimum : minima)
    result.agreeing += minimum.value <= best->value * (1 + 1e-6) + 1e-18 * static_cast<double>(samples.size());
  return result;
}

Fit refit(const Form& form, std::span<const Sample> samples, std::span<const double> theta, const FitOptions& options) {
  const Minimum minimum = minimize(regression(form, samples, options.delta), theta);
  return {minimum.x, minimum.value, minimum.converged, 1, 1};
}

}  // namespace tessera
