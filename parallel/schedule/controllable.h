// V-Half and V-Min (Qi et al. 2024, "Pipeline Parallelism with Controllable Memory"): two stages a rank, placed in a V,
// with about a half and a third of 1F1B's memory. Compute actions only.
//
// A *building block* says when each rank does the passes of one microbatch: FORWARD goes from one rank to the next in
// d_Fa units down and d_Fb up, BACKWARD_INPUT in d_Bb down and d_Ba up. A block is repeated every 6 units (two stages
// of three passes), so it fits with its repetitions when the passes of a rank have different remainders by 6. The time
// between a microbatch's FORWARD and BACKWARD_WEIGHT on a rank is what memory it takes; with d_Fa + d_Ba = d_Fb + d_Bb
// it is the same on all ranks: 2 for a third, 3 for a half, 6 for all of 1F1B's.
#pragma once

#include <optional>

#include "parallel/schedule/costs.h"
#include "parallel/schedule/schedule.h"

namespace tessera {

// At most 2 * ((ranks + 2) / 2) slots a rank, each of half a rank's layers (1F1B: 2 * ranks).
PipelineSchedule v_half_schedule(int ranks, int microbatches, const ScheduleCosts& costs);

// At most 2 * ((ranks + 4) / 3) slots a rank.
PipelineSchedule v_min_schedule(int ranks, int microbatches, const ScheduleCosts& costs);

// The order of FORWARD and BACKWARD_INPUT that repeating the best building block with d_Fa + d_Ba = d_Fb + d_Bb =
// `offset` gives, and the slots that a rank needs with it. Nothing where no block fits; those of 2, 3 and 6 always do.
struct BlockOrder {
  PipelineSchedule order;
  int slots = 0;
};
std::optional<BlockOrder> building_block_order(int ranks, int microbatches, int offset);

}  // namespace tessera
