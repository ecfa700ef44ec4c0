// How sure a fit is: refits of data made anew from the fitted law and its own errors.
//
// Errors e_i = r_i / sqrt(1 - h_i) (h the leverage: a fit pulls its own points towards itself), centred, are drawn with
// replacement and smoothed by a normal kernel of bandwidth 0.9 n^(-1/5) standard deviations (Silverman), then scaled
// back to their variance: Huber's fit passes through some points exactly, and without smoothing those zeros would make
// every refit look too sure. Runs of one N, D and U (seeds) are one cell: what the cells' means and the seeds within
// them contribute is estimated and drawn apart. Intervals are BCa (Efron 1987), the acceleration from leaving out one
// cell at a time.
#pragma once

#include <functional>

#include "scaling/fit/estimate.h"
#include "scaling/fit/fit.h"

namespace tessera {

struct BootstrapOptions {
  int replicates = 1000;
  uint64_t seed = 1;
  FitOptions fit = {};
};

struct Bootstrap {
  Theta theta;                    // the fit
  std::vector<Theta> replicates;  // refits
  std::vector<Theta> left_out;    // refits without one cell
  std::vector<double> errors;     // log-loss errors of one run, one drawn for each replicate

  // Of any number that follows from theta, at level 0.9 and the like.
  Estimate interval(const std::function<double(std::span<const double> theta)>& quantity, double level) const;
  // Of the loss that one more run at `sample` would measure: as interval(log loss) with one run's error added. Loss,
  // not log loss.
  Estimate run_interval(const Form& form, const Sample& sample, double level) const;
};

Bootstrap bootstrap(const Form& form, std::span<const Sample> samples, const Fit& fit,
                    const BootstrapOptions& options = {});

}  // namespace tessera
