// How often intervals hold the truth: data sets of a known law with noise, each fitted and given intervals.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "scaling/fit/bootstrap.h"
#include "tests/scaling/ladder.h"

namespace tessera::testing {

struct Coverage {
  std::vector<std::string> names;  // the constants, and the loss at 100 times the largest compute
  std::vector<int> held;           // of `sets`
  int sets = 0;
};

inline Coverage coverage(const Form& form, const std::vector<double>& values, Ladder shape, int sets, int replicates,
                         double delta, uint64_t first_seed) {
  const Theta truth = form.theta(values);
  Coverage result;
  for (const Constant& constant : form.constants()) result.names.push_back(constant.name);
  result.names.push_back("100 x compute");
  result.held.assign(result.names.size(), 0);
  result.sets = sets;
  // Ten times the parameters and the tokens of the largest run.
  const Sample far(10 * shape.largest, 10 * shape.largest * shape.most, 1);
  for (int set = 0; set < sets; ++set) {
    shape.seed = first_seed + static_cast<uint64_t>(set);
    const auto samples = ladder(form, truth, shape);
    const FitOptions options{.delta = delta, .polished_starts = 8};
    const Bootstrap made = bootstrap(form, samples, fit(form, samples, options),
                                     {.replicates = replicates, .seed = shape.seed, .fit = options});
    for (size_t k = 0; k < result.held.size(); ++k) {
      const auto quantity = [&](std::span<const double> theta) {
        return k < truth.size() ? theta[k] : form.log_loss(far, theta, {});
      };
      const Estimate interval = made.interval(quantity, 0.9);
      result.held[k] += interval.low <= quantity(truth) && quantity(truth) <= interval.high;
    }
  }
  return result;
}

}  // namespace tessera::testing
