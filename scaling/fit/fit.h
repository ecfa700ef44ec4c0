// Fits a law to runs.
#pragma once

#include "scaling/fit/form.h"
#include "scaling/fit/objective.h"

namespace tessera {

struct Fit {
  Theta theta;
  double objective = 0;  // at theta, summed over runs
  bool converged = false;
  int starts = 0;    // places that were looked at
  int agreeing = 0;  // of the polished ones, how many ended at this objective
};

struct FitOptions {
  double delta = kHuberDelta;
  int polished_starts = 24;  // of all starts of the form, the best ones that L-BFGS goes down from
};

// The lowest of many minima. `samples` must have at least as many rows as the form has constants (DataError).
Fit fit(const Form& form, std::span<const Sample> samples, const FitOptions& options = {});

// From one place, as for a bootstrap replicate of data that theta fits already.
Fit refit(const Form& form, std::span<const Sample> samples, std::span<const double> theta,
          const FitOptions& options = {});

}  // namespace tessera
