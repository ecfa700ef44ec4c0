// Generators: pure functions from a few numbers to a schedule.
//
//   gpipe        Huang et al. 2019: all forwards, then all backwards.
//   1f1b         Narayanan et al. 2021: one forward, one backward after a warm-up as long as the way to the last stage.
//   interleaved  Narayanan et al. 2021: 1F1B over `chunks` stages a rank, microbatches in groups.
//   zb-h1        Qi et al. 2023: 1F1B with BACKWARD_WEIGHT in the waiting times, with its memory.
//   zb-h2        the same with twice as much.
//   zb-v         Qi et al. 2023: two stages a rank in a V, no bubble with 1F1B's memory.
//   dualpipe-v   DeepSeek 2024: the same placement, forward and backward of different microbatches side by side.
//   v-half       Qi et al. 2024: the same placement, about a half of 1F1B's memory.
//   v-min        the same with about a third.
#pragma once

#include <string>
#include <vector>

#include "parallel/schedule/costs.h"
#include "parallel/schedule/passes.h"
#include "parallel/schedule/schedule.h"

namespace tessera {

enum class ScheduleKind : uint8_t {
  GPipe,
  OneForwardOneBackward,
  Interleaved,
  ZbH1,
  ZbH2,
  ZbV,
  DualPipeV,
  VHalf,
  VMin
};
inline constexpr int kScheduleKinds = 9;

const char* name(ScheduleKind kind);                        // "gpipe", "1f1b", "interleaved", "zb-h1", ...
int own_chunks(ScheduleKind kind);                          // stages a rank, unless the spec says otherwise
ScheduleKind parse_schedule_kind(const std::string& text);  // throws UsageError that lists the names

struct ScheduleSpec {
  ScheduleKind kind = ScheduleKind::OneForwardOneBackward;
  int ranks = 1;  // pipeline ranks
  int microbatches = 1;
  // Stages a rank; 0: the kind's own. interleaved takes any number (its own: 2), the others only theirs.
  int chunks = 0;
  // interleaved: microbatches that pass through a chunk before the rank's next chunk; 0: `ranks`.
  int group = 0;
  ScheduleCosts costs = {};  // by stage; they place BACKWARD_WEIGHT in zb-h1, zb-h2, zb-v, v-half and v-min
};

// The compute actions alone. Every microbatch passes FORWARD, BACKWARD_INPUT and BACKWARD_WEIGHT of every stage, each
// in microbatch order. Any number of microbatches is right, also fewer than ranks. Throws UsageError on numbers that
// make no schedule.
PipelineSchedule compute_schedule(const ScheduleSpec& spec);

// With messages, reductions, norm and step: what a training step executes.
PipelineSchedule generate(const ScheduleSpec& spec);

}  // namespace tessera
