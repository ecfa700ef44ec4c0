// The schedule that takes the least time of all, for small cases: branch and bound over active schedules (Giffler and
// Thompson 1960), those in which no action could begin earlier without another beginning later. One of them is a best
// one.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "parallel/schedule/costs.h"
#include "parallel/schedule/schedule.h"

namespace tessera {

struct ExactSchedule {
  std::optional<PipelineSchedule> schedule;  // better than the bound, if one was found
  bool complete = false;                     // nothing better exists: all of the tree was seen or ruled out
};

// One stage a rank, whose slots `limits` bound (at least 1); the time is the makespan. Looks for less than `bound`, and
// gives up after `nodes` decisions.
ExactSchedule exact_schedule(int ranks, int microbatches, const ScheduleCosts& costs,
                             const std::vector<int64_t>& limits, double bound, int64_t nodes);

}  // namespace tessera
