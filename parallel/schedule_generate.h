// Generators: pure functions from a few numbers to a schedule.
//
//   gpipe        Huang et al. 2019: all forwards, then all backwards.
//   1f1b         Narayanan et al. 2021: one forward, one backward after a warm-up as long as the way to the last stage.
//   interleaved  Narayanan et al. 2021: 1F1B over `chunks` stages a rank, microbatches in groups.
#pragma once

#include <string>
#include <vector>

#include "parallel/schedule.h"
#include "parallel/schedule_passes.h"

namespace tessera {

enum class ScheduleKind : uint8_t { GPipe, OneForwardOneBackward, Interleaved };

const char* name(ScheduleKind kind);                        // "gpipe", "1f1b", ...
ScheduleKind parse_schedule_kind(const std::string& text);  // throws UsageError that lists the names

struct ScheduleSpec {
  ScheduleKind kind = ScheduleKind::OneForwardOneBackward;
  int ranks = 1;  // pipeline ranks
  int microbatches = 1;
  int chunks = 0;  // stages a rank, of interleaved; 0: 2. Other kinds have 1.
  int group = 0;   // interleaved: microbatches that pass through a chunk before the rank's next chunk; 0: `ranks`
  TiedEnds tied = TiedEnds::No;
};

// The compute actions alone. Every microbatch passes FORWARD, BACKWARD_INPUT and BACKWARD_WEIGHT of every stage, each in
// microbatch order. Any number of microbatches is right, also fewer than ranks. Throws UsageError on numbers that make
// no schedule.
PipelineSchedule compute_schedule(const ScheduleSpec& spec);

// With messages, reductions, norm and step: what a training step executes.
PipelineSchedule generate(const ScheduleSpec& spec);

}  // namespace tessera
