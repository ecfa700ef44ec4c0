#include "scaling/law/curve.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "scaling/fit/minimize.h"
#include "tensor/check.h"

namespace tessera {

CurveLaw::CurveLaw(std::span<const LossCurve> curves) {
  for (size_t c = 0; c < curves.size(); ++c) {
    const LossCurve& curve = curves[c];
    if (!curve.losses.empty() && curve.losses.size() != curve.steps.size())
      throw DataError(fmt::format("curve {}: {} losses at {} steps", c, curve.losses.size(), curve.steps.size()));
    for (size_t i = 0; i < curve.steps.size(); ++i) {
      if (curve.steps[i] < 1 || curve.steps[i] > curve.learning_rates.size())
        throw DataError(
            fmt::format("curve {}: step {} of a schedule of {} steps", c, curve.steps[i], curve.learning_rates.size()));
      if (curve.losses.empty()) continue;
      if (!(std::isfinite(curve.losses[i]) && curve.losses[i] > 0))
        throw DataError(
            fmt::format("curve {}, step {}: loss {} is not a positive number", c, curve.steps[i], curve.losses[i]));
      log_observed_.push_back(std::log(curve.losses[i]));
    }
    rows_ += curve.steps.size();
  }
}

double CurveLaw::log_loss(size_t row, std::span<const double> theta, std::span<double> gradient) const {
  constexpr double kLeast = 1e-6;
  const double value = loss(row, theta, gradient), divisor = std::max(value, kLeast);
  for (double& slope : gradient) slope /= divisor;
  return value >= kLeast ? std::log(value) : std::log(kLeast) + (value - kLeast) / kLeast;
}

Fit fit(const CurveLaw& law, const FitOptions& options) {
  if (law.log_observed().size() != law.rows() || law.rows() < law.constants().size())
    throw DataError(fmt::format("{} points of loss curves: the law {} has {} constants and needs at least as many",
                                law.log_observed().size(), law.name(), law.constants().size()));
  Regression rows;
  rows.constants = law.constants().size();
  rows.predict = [&law](size_t row, auto theta, auto gradient) { return law.log_loss(row, theta, gradient); };
  rows.log_observed = law.log_observed();
  rows.delta = options.delta;
  const std::vector<Theta> starts = law.starts();
  Fit best;
  best.objective = INFINITY;
  best.starts = static_cast<int>(starts.size());
  for (size_t s = 0; s < std::min(starts.size(), static_cast<size_t>(options.polished_starts)); ++s) {
    const Minimum minimum = minimize(rows, starts[s]);
    if (minimum.value < best.objective * (1 - 1e-6)) best.agreeing = 0;
    best.agreeing += minimum.value <= best.objective * (1 + 1e-6);
    if (minimum.value < best.objective) {
      best.theta = minimum.x;
      best.objective = minimum.value;
      best.converged = minimum.converged;
    }
  }
  return best;
}

}  // namespace tessera
