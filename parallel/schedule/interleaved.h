// Schedules that keep backward in one piece: GPipe, 1F1B and interleaved 1F1B. Compute actions only; stages are placed
// in a loop.
#pragma once

#include "parallel/schedule/schedule.h"

namespace tessera {

PipelineSchedule gpipe_schedule(int ranks, int microbatches);

// Rank r starts with ranks - 1 - r forwards (Narayanan et al. 2021, figure 4, top).
PipelineSchedule one_forward_one_backward_schedule(int ranks, int microbatches);

// `chunks` stages a rank. Microbatches go in groups of `group` (the last may be smaller); a group passes through all of
// a rank's chunks, in backward in reverse, before the next one. Rank r starts with (chunks - 1) * group + 2 * (ranks -
// 1 - r) forwards of a microbatch through a chunk, which is least when groups have `ranks` microbatches (Narayanan et
// al. 2021, figure 4, bottom). Groups of other sizes, and a smaller last group, may need more: all ranks then start
// with as many more as it takes not to deadlock. With one chunk this is 1F1B.
PipelineSchedule interleaved_schedule(int ranks, int microbatches, int chunks, int group);

}  // namespace tessera
