// A step as data: the ordered list of actions of one pipeline rank.
//
// The vocabulary is that of Narayanan et al. 2021 (1F1B) and Qi et al. 2023 (zero bubble): backward is split into the
// gradient of the input, which the stage before waits for, and the gradient of the weights, which may run later.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tessera {

enum class ActionKind : uint8_t {
  Forward,         // FORWARD: run the stage's blocks on a microbatch
  BackwardInput,   // BACKWARD_INPUT: gradient of the stage's input
  BackwardWeight,  // BACKWARD_WEIGHT: gradients of the stage's weights
  Reduce,          // REDUCE: add the gradients of the stage's weights over their replicas
  Norm,            // NORM: global gradient norm
  Step,            // STEP: optimizer
};
const char* name(ActionKind kind);

struct Action {
  ActionKind kind;
  int stage = 0;
  int microbatch = -1;  // -1: the action belongs to no microbatch
  bool operator==(const Action&) const = default;
};

using Schedule = std::vector<Action>;

// One stage: forward, backward_input, backward_weight for each microbatch in order, then the gradients' reduction, norm
// and optimizer step. Gradient accumulation is this list.
Schedule accumulation_schedule(int microbatches);

// Forward only, for evaluation.
Schedule forward_schedule(int microbatches);

// "F0 B0 W0 F1 B1 W1 R N S"; "F0@2" on a stage other than 0.
std::string to_string(const Schedule& schedule);

// The reverse of to_string(). Throws UsageError naming what is no action.
Schedule parse_schedule(const std::string& text);

// Replays the list: every microbatch forward, then backward_input, then backward_weight, once each (or forward only),
// BACKWARD_WEIGHT in microbatch order, and REDUCE, NORM, STEP after all of them in that order. Returns the largest
// number of microbatches alive at once (between FORWARD and BACKWARD_WEIGHT; none when forward only). Throws
// InternalError that shows the list with an arrow at the first bad action.
int verify(const Schedule& schedule, int microbatches);

}  // namespace tessera
