#include "scaling/law/critical_batch.h"

#include <fmt/format.h>

#include <cmath>
#include <set>
#include <vector>

#include "scaling/fit/nnls.h"
#include "tensor/check.h"

namespace tessera {

CriticalBatch fit_critical_batch(std::span<const BatchRun> runs) {
  std::set<double> sizes;
  for (const BatchRun& run : runs) {
    if (!(run.batch_tokens > 0 && run.steps > 0 && std::isfinite(run.batch_tokens) && std::isfinite(run.steps)))
      throw DataError(fmt::format("a run of {} steps with batches of {} tokens: both must be positive", run.steps,
                                  run.batch_tokens));
    sizes.insert(run.batch_tokens);
  }
  if (sizes.size() < 2)
    throw DataError(fmt::format("{} batch sizes: a critical batch takes runs of at least 2", sizes.size()));
  const size_t n = runs.size();
  std::vector<double> columns(2 * n), ones(n, 1.0);
  for (size_t i = 0; i < n; ++i) {
    columns[i] = 1 / runs[i].steps;
    columns[n + i] = 1 / (runs[i].batch_tokens * runs[i].steps);
  }
  const NonNegative solved = nonnegative_least_squares(columns, ones);
  if (!(solved.x[0] > 0))
    throw DataError(fmt::format("steps fall as fast as batches grow, up to {} tokens: the critical batch is larger",
                                *sizes.rbegin()));
  if (!(solved.x[1] > 0))
    throw DataError(fmt::format("steps do not fall with the batch, from {} tokens on: the critical batch is smaller",
                                *sizes.begin()));
  return {solved.x[0], solved.x[1]};
}

}  // namespace tessera
