// The batch at which a step's gradient is half signal, half noise.
//
// To reach one loss, a run with batches of B tokens needs S steps and E = B S tokens, with
//
//   (S / S_min - 1) (E / E_min - 1) = 1   <=>   S = S_min + E_min / B,   B_crit = E_min / S_min
//
// McCandlish et al. 2018, "An Empirical Model of Large-Batch Training". Linear in S_min and E_min: fitted by
// non-negative least squares on the relative error of S.
#pragma once

#include <span>

namespace tessera {

struct BatchRun {
  double batch_tokens, steps;  // steps until the loss was reached
};

struct CriticalBatch {
  double least_steps = 0, least_tokens = 0;
  double tokens() const { return least_tokens / least_steps; }  // B_crit

  double steps_at(double batch_tokens) const { return least_steps + least_tokens / batch_tokens; }
};

// Throws DataError for fewer than two batch sizes, numbers that are not positive, and runs whose steps do not fall with
// the batch (or fall as fast as it grows), where B_crit lies outside what was tried.
CriticalBatch fit_critical_batch(std::span<const BatchRun> runs);

}  // namespace tessera
