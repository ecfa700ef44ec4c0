#include "parallel/schedule/costs.h"

#include <fmt/format.h>

#include <cmath>

#include "tensor/check.h"

namespace tessera {

void ScheduleCosts::set(double StageCosts::*part, std::span<const double> times, int ranks, const std::string& what) {
  if (times.size() != 1 && times.size() != stages.size()) {
    throw UsageError(
        fmt::format("{} has {} times: give one (of a rank, which its stages share) or {} (one for each stage)", what,
                    times.size(), stages.size()));
  }
  for (double time : times) {
    if (!std::isfinite(time) || time < 0) throw UsageError(fmt::format("{} = {}: a time is 0 or more", what, time));
  }
  const double share = static_cast<double>(ranks) / static_cast<double>(stages.size());
  for (size_t s = 0; s < stages.size(); ++s) stages[s].*part = times.size() == 1 ? times[0] * share : times[s];
}

}  // namespace tessera
