// A step as data: for each pipeline rank the ordered list of its actions.
//
// The vocabulary is that of Narayanan et al. 2021 (1F1B, interleaving) and Qi et al. 2023 (zero bubble): backward is
// split into the gradient of the input, which the stage before waits for, and the gradient of the weights, which may
// run later. schedule_generate.h makes schedules, schedule_passes.h adds to them, schedule_verify.h states the rules
// that bind the actions, schedule_text.h writes and reads them.
#pragma once

#include <climits>
#include <cstdint>
#include <string>
#include <vector>

namespace tessera {

enum class ActionKind : uint8_t {
  Forward,          // FORWARD: run blocks of a stage on a microbatch
  BackwardInput,    // BACKWARD_INPUT: gradient of the blocks' input
  BackwardWeight,   // BACKWARD_WEIGHT: gradients of the blocks' weights
  SendForward,      // SEND_FORWARD: the stage's output to the next stage
  ReceiveForward,   // RECEIVE_FORWARD: the stage's input from the stage before
  SendBackward,     // SEND_BACKWARD: the gradient of the stage's input to the stage before
  ReceiveBackward,  // RECEIVE_BACKWARD: the gradient of the stage's output from the next stage
  Recompute,        // RECOMPUTE: make again, before BACKWARD_INPUT, what FORWARD did not keep
  Offload,          // OFFLOAD: a microbatch's saved activations to host memory
  Fetch,            // FETCH: and back
  Gather,           // GATHER: the whole weights of blocks from their shards (ZeRO-3)
  Release,          // RELEASE: let the gathered weights go
  Reduce,           // REDUCE: add the gradients of blocks' weights over their replicas
  Norm,             // NORM: global gradient norm
  Step,             // STEP: optimizer
};
inline constexpr int kActionKinds = 15;

const char* name(ActionKind kind);  // "FORWARD", ...
bool is_compute(ActionKind kind);   // FORWARD, BACKWARD_INPUT, BACKWARD_WEIGHT
bool is_message(ActionKind kind);   // SEND_* and RECEIVE_*
// Whether the action belongs to a microbatch (else to a stage's weights, or to the whole rank).
bool has_microbatch(ActionKind kind);

// The stage's own blocks [first, last). The embedding goes with the first block, the head with the last.
struct BlockRange {
  static constexpr int kToEnd = INT_MAX;
  int first = 0;
  int last = kToEnd;
  bool operator==(const BlockRange&) const = default;
  bool whole() const { return first == 0 && last == kToEnd; }
};

struct Action {
  ActionKind kind;
  int stage = 0;
  int microbatch = -1;  // -1: the action belongs to no microbatch
  BlockRange blocks = {};
  bool operator==(const Action&) const = default;
};

// One rank's list.
using Schedule = std::vector<Action>;

struct PipelineSchedule {
  int microbatches = 0;
  std::vector<int> rank_of_stage;  // where each stage lies
  std::vector<Schedule> ranks;     // by pipeline rank

  int stages() const { return static_cast<int>(rank_of_stage.size()); }
  // Whether stage `stage` gets its input in a message: the stage before lies on another rank.
  bool receives(int stage) const { return stage > 0 && rank_of_stage[stage - 1] != rank_of_stage[stage]; }
  // Whether stage `stage` sends its output in a message: the next stage lies on another rank.
  bool sends(int stage) const { return stage + 1 < stages() && receives(stage + 1); }
  bool operator==(const PipelineSchedule&) const = default;
};

// Stage s on rank s % ranks: `chunks` stages a rank (Narayanan et al. 2021).
std::vector<int> loop_placement(int ranks, int chunks);
// Two stages a rank, down and up again: stage s on rank s, then on 2 * ranks - 1 - s (Qi et al. 2024), so that the
// first and the last stage share rank 0 and no message turns round at the bottom.
std::vector<int> v_placement(int ranks);

// The most passes (pipeline ranks x chunks x microbatches) of a schedule: making and replaying that many takes about a
// second.
inline constexpr int64_t kMostPasses = 1 << 18;

// Whether a schedule of so many stages (ranks x chunks) and microbatches can be made; else what is wrong with it.
std::string schedule_size_problem(int64_t stages, int64_t microbatches);

}  // namespace tessera
