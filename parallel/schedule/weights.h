// Where BACKWARD_WEIGHT goes. Nobody waits for it, so it fills the times in which a rank has to wait; it also ends a
// microbatch's memory, so it cannot wait for ever (Qi et al. 2023, section 3.1).
#pragma once

#include <optional>

#include "parallel/schedule/costs.h"
#include "parallel/schedule/schedule.h"
#include "parallel/schedule/verify.h"

namespace tessera {

struct PlacedWeights {
  PipelineSchedule schedule;
  double makespan = 0;  // from the first action to the end of the last
  double span = 0;      // the longest time from a rank's first action to its last one's end
};

// Takes each rank's order of FORWARD and BACKWARD_INPUT (BACKWARD_WEIGHTs in it are ignored) and runs them in time. A
// rank does a BACKWARD_WEIGHT, the oldest first, when the next FORWARD would exceed the rank's memory limit (slots;
// inputs are not counted), when it must wait at least `patience` times as long as a BACKWARD_WEIGHT takes, and at the
// end. Nothing when a limit cannot be kept in this order.
std::optional<PlacedWeights> place_weights(const PipelineSchedule& orders, const ScheduleCosts& costs,
                                           const ScheduleMemory& memory, double patience);

// The one with the least makespan, then span, of several patiences.
std::optional<PlacedWeights> place_weights(const PipelineSchedule& orders, const ScheduleCosts& costs,
                                           const ScheduleMemory& memory);

}  // namespace tessera
