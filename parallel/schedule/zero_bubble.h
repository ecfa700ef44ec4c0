// ZB-H1 and ZB-H2 (Qi et al. 2023, section 2): 1F1B with BACKWARD_WEIGHT moved into the waiting times. Compute actions
// only.
#pragma once

#include "parallel/schedule/costs.h"
#include "parallel/schedule/schedule.h"

namespace tessera {

// Rank r starts with ranks - 1 - r forwards, as in 1F1B, and keeps at most `ranks` slots: no more than 1F1B's rank 0.
// Bubble (p - 1)(F + B - W).
PipelineSchedule zb_h1_schedule(int ranks, int microbatches, const ScheduleCosts& costs);

// Twice as many forwards at the start fill the time before the first backward; at most 2 * ranks - 1 slots.
// Bubble (p - 1)(F + B - 2W), none when all take the same time, if ranks need not begin together.
PipelineSchedule zb_h2_schedule(int ranks, int microbatches, const ScheduleCosts& costs);

// One forward, one backward after warmup * (ranks - 1 - r) forwards on rank r: the order of both, without
// BACKWARD_WEIGHT.
PipelineSchedule forward_backward_order(int ranks, int microbatches, int warmup);

}  // namespace tessera
