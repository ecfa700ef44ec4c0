// Schedules over two stages a rank that are placed in a V: ZB-V and DualPipe-V. Compute actions only. A rank's stage on
// the way down is called a, the one on the way back b.
//
// Both patterns need more microbatches than ranks. For fewer they are made for as many as they need, and the actions of
// the microbatches that are not there are left out: no microbatch waits for another.
#pragma once

#include "parallel/schedule/costs.h"
#include "parallel/schedule/schedule.h"

namespace tessera {

// ZB-V (Qi et al. 2023, section 6): no bubble when FORWARD, BACKWARD_INPUT and BACKWARD_WEIGHT take the same time, with
// the memory of 1F1B's first rank (2 * ranks slots of half as much) on every rank. BACKWARD_WEIGHT goes where the costs
// leave time.
PipelineSchedule zb_v_schedule(int ranks, int microbatches, const ScheduleCosts& costs);

// DualPipe-V (the cut-in-half form of DeepSeek-V3's DualPipe, 2024): in the steady state a forward of one stage stands
// beside the backward of the other, whose messages it hides; BACKWARD_WEIGHT is apart only at the ends. Up to
// 2 * ranks + 1 slots.
PipelineSchedule dualpipe_v_schedule(int ranks, int microbatches);

}  // namespace tessera
