// Schedules as text, and as files.
//
//   list   = { action }, separated by blanks
//   action = kind [microbatch] ["@" stage] [":" first "-" [last]]
//   kind   = F | B | W                  FORWARD, BACKWARD_INPUT, BACKWARD_WEIGHT
//          | SF | RF | SB | RB          SEND_FORWARD, RECEIVE_FORWARD, SEND_BACKWARD, RECEIVE_BACKWARD
//          | C | O | I                  RECOMPUTE, OFFLOAD, FETCH; all so far with a microbatch
//          | G | X | R                  GATHER, RELEASE, REDUCE: no microbatch
//          | N | S                      NORM, STEP: neither microbatch nor stage
//
// A stage that is not written is 0; blocks that are not written are all of the stage, a last one that is not written is
// the stage's end. "RF0@1 F0@1 B0@1:2- B0@1:0-2 W0@1 SB0@1 R@1 N S".
//
// A file has a header and one line a rank ('#' begins a comment):
//   tessera schedule 1
//   microbatches 2
//   placement 0 1          the rank of each stage
//   rank 0: F0 SF0 ...
//   rank 1: RF0@1 F0@1 ...
#pragma once

#include <string>

#include "parallel/schedule/schedule.h"

namespace tessera {

std::string to_string(const Action& action);
std::string to_string(const Schedule& schedule);
std::string to_string(const PipelineSchedule& schedule);  // a file's text

// The reverse. Throw UsageError that names what is no action, or the line of a file that is wrong. The order of the
// actions is not looked at: that is verify()'s.
Schedule parse_schedule(const std::string& text);
PipelineSchedule parse_pipeline_schedule(const std::string& text);

// Throw UsageError, with the file's name, when it cannot be read; IoError when it cannot be written.
PipelineSchedule read_schedule_file(const std::string& path);
void write_schedule_file(const std::string& path, const PipelineSchedule& schedule);

// The lists under each other, one line a rank, and an arrow under action at[rank] of `rank` (or behind the last one).
// Long lists are cut to the surroundings of at[r] on each rank r.
std::string grid_with_arrow(const PipelineSchedule& schedule, int rank, const std::vector<size_t>& at);

}  // namespace tessera
