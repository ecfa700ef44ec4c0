// How far a fit can be trusted: on runs that it has not seen, against other forms, and run by run.
#pragma once

#include "scaling/fit/fit.h"

namespace tessera {

// The constants that no run says anything about: the law at every run stays as it is when they move (r_D of
// Muennighoff's law where no run repeats data). Their fitted values mean nothing.
std::vector<std::string> undetermined(const Form& form, std::span<const Sample> samples, std::span<const double> theta);

struct HeldOut {
  std::vector<size_t> rows;
  std::vector<double> errors;  // log predicted - log measured, of `rows`
  double mean_absolute = 0, largest = 0;
  double compute_ratio = 1;  // largest 6 N D held out, over the largest fitted
};

// Fits without the `share` of runs with the most compute (at least one; whole cells of one 6 N D) and predicts them.
// Throws DataError when too few are left for the form.
HeldOut leave_largest_out(const Form& form, std::span<const Sample> samples, double share = 0.2,
                          const FitOptions& options = {});

// k folds by (seed, row): each run is predicted by a fit to the other folds.
HeldOut k_fold(const Form& form, std::span<const Sample> samples, int folds = 5, uint64_t seed = 1,
               const FitOptions& options = {});

// Akaike's criterion with the correction for few runs (Hurvich and Tsai 1989), of a normal error of log loss with a
// deviation of its own: n log(RSS / n) + 2 k + 2 k (k + 1) / (n - k - 1), k = constants + 1, RSS the least sum of
// squared log residuals. Lower is better; comparable between forms on the same runs. Infinite when n <= k + 1.
double corrected_akaike(const Form& form, std::span<const Sample> samples, std::span<const double> near);

struct Influence {
  size_t row = 0;
  double residual = 0;  // log measured - log fitted
  double leverage = 0;  // 0 to 1: how much the fit at this run follows this run
  double shift = 0;     // of log loss at `target` when this run is left out
};

// For each run; `target` is where the prediction matters.
std::vector<Influence> influence(const Form& form, std::span<const Sample> samples, std::span<const double> theta,
                                 const Sample& target, const FitOptions& options = {});

}  // namespace tessera
