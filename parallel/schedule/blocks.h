// Passes that split stages into blocks: recomputation, bucketed reductions, gathered weights; and offloading. They take
// lists of compute actions, in this order, before insert_messages() and append_step() (schedule_passes.h).
//
// `blocks` says how many blocks every stage has. The range of a stage's last blocks is written as open ("2-").
#pragma once

#include <vector>

#include "parallel/schedule/passes.h"
#include "parallel/schedule/schedule.h"

namespace tessera {

// plan[stage][block]: whether FORWARD keeps only the block's input, so that RECOMPUTE comes before its BACKWARD_INPUT.
// Such blocks go one by one; where BACKWARD_WEIGHT follows at once it goes block by block, too, so that one recompute
// slot is alive at a time. Put off, it keeps the recompute slots of all its blocks alive.
PipelineSchedule insert_recompute(PipelineSchedule schedule, const std::vector<std::vector<bool>>& plan);

// REDUCE of every `bucket` blocks, as soon as BACKWARD_WEIGHT of these is done: of the last microbatch, whose gradients
// are then whole sums, or of each, so that no more than one bucket's gradients are alive. BACKWARD_INPUT goes bucket by
// bucket, too, where BACKWARD_WEIGHT follows at once and no other rank waits for the input's gradient: the two share
// what they have in common, and reductions begin while BACKWARD_INPUT goes on.
enum class ReduceOf : uint8_t { LastMicrobatch, EachMicrobatch };
PipelineSchedule insert_reductions(PipelineSchedule schedule, const std::vector<int>& blocks, int bucket,
                                   ReduceOf which = ReduceOf::LastMicrobatch);

// ZeRO-3: FORWARD, RECOMPUTE and BACKWARD_INPUT block by block, GATHER of the next block before each and RELEASE behind
// it unless the same block comes next: no more than two blocks are gathered at once.
PipelineSchedule insert_gathers(PipelineSchedule schedule, const std::vector<int>& blocks);

// OFFLOAD of a microbatch's slot after FORWARD when at least `least` (2 or more) compute actions come before the next
// one that needs it; FETCH one compute action ahead of that.
PipelineSchedule insert_offload(PipelineSchedule schedule, int least);

}  // namespace tessera
