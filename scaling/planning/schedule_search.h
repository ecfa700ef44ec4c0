// The best schedule under a memory limit, from measured times (Qi et al. 2023, section 3; 2024).
//
// Candidates are orders of FORWARD and BACKWARD_INPUT, in which place_weights() (parallel/schedule/weights.h) puts
// BACKWARD_WEIGHT under the limit: with one stage a rank 1F1B after any number of forwards at the start, changed rank
// by rank while that helps; in a V, ZB-V and repeated building blocks of every size; in a loop, interleaved groups of
// every size. Small cases with one stage a rank are then solved exactly (schedule_exact.h).
#pragma once

#include <cstdint>
#include <vector>

#include "parallel/schedule/costs.h"
#include "parallel/schedule/schedule.h"
#include "parallel/schedule/verify.h"

namespace tessera {

struct SearchRequest {
  std::vector<int> rank_of_stage;  // one stage a rank, a loop or a V
  int microbatches = 1;
  ScheduleCosts costs;
  ScheduleMemory memory;            // of slots; limits by rank. A rank's stages have slots of one size
  int64_t exact_nodes = 2'000'000;  // decisions of the exact search; 0: none
};

struct FoundSchedule {
  PipelineSchedule schedule;  // compute actions
  double makespan = 0;
  bool optimal = false;  // proved by the exact search
};

// The schedule with the least makespan that was found. Throws UsageError that names a rank whose limit no candidate
// keeps, with the least that one does.
FoundSchedule search_schedule(const SearchRequest& request);

}  // namespace tessera
