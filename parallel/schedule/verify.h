// The rules that bind the actions of a schedule, and their check by replay.
//
// Compute. Per stage FORWARD, BACKWARD_INPUT and BACKWARD_WEIGHT of every microbatch once, each kind in microbatch
// order (so that sums over microbatches have one order in every schedule of a layout), blocks upwards in FORWARD and
// downwards in the others. FORWARD follows that of the stage before, BACKWARD_INPUT that of the next stage.
//
// Messages. Between stages on different ranks: FORWARD(s, m) waits for the message that RECEIVE_FORWARD(s, m) posted,
// BACKWARD_INPUT(s, m) for that of RECEIVE_BACKWARD(s, m). Sends and receives do not block; they meet in order within a
// channel (sending stage, direction). Under the rendezvous rule a send is *taken up* when the peer has posted its
// receive. Between stages on one rank there are none: the output of s is the input of s + 1, its gradient comes back in
// the same memory, and the list itself must be in order.
//
// Memory. A *slot* of stage s (what FORWARD saves, with the stage's output) is alive from FORWARD(s, m) to
// BACKWARD_WEIGHT(s, m), but for the time between OFFLOAD (after SEND_FORWARD) and FETCH (before RECEIVE_BACKWARD); an
// *input* (what came in a message, later its gradient) from RECEIVE_FORWARD(s, m) to SEND_BACKWARD(s, m), and reused
// when that send has been taken up; a *recompute slot* of blocks from RECOMPUTE to BACKWARD_WEIGHT. RECEIVE_BACKWARD(s,
// m) is posted into the output, when SEND_FORWARD(s, m) has been taken up. In a forward-only schedule a slot is alive
// from FORWARD until its output has been sent and taken up, or read by the next stage on the same rank, an input from
// RECEIVE_FORWARD to FORWARD.
//
// Weights. When a stage has GATHERs, FORWARD, RECOMPUTE and BACKWARD_INPUT need their blocks gathered; on a rank no
// more than kMostGathered GATHERs wait for their RELEASE. REDUCE of blocks follows a BACKWARD_WEIGHT of all of them
// that no REDUCE has followed yet: the last one, or (where gradients are sharded) that of each microbatch. NORM follows
// when there is none left on the rank, STEP follows NORM and is the last.
#pragma once

#include <cstdint>
#include <vector>

#include "parallel/schedule/schedule.h"

namespace tessera {

// What a stage's parts hold, in bytes (or in any unit: a schedule's peak in slots is that of the default).
struct StageBytes {
  int64_t slot = 1;
  int64_t input = 0;
  int64_t recompute_slot = 0;
  int64_t gathered = 0;  // the weights of a GATHER
};

inline constexpr int kMostGathered = 2;

struct ScheduleMemory {
  std::vector<StageBytes> stages;  // by stage; empty: the default for all
  std::vector<int64_t> limits;     // by rank; empty: none
};

// Limits in slots, from the most microbatches whose activations a rank keeps: a slot is those of one of its stages.
ScheduleMemory slot_limits(double microbatches, int ranks, int stages);

// Buffers that a stage needs: the most slots and recompute slots alive at once, and one input more than are alive at
// once, because the gradient in one may still be on its way. With as many the ranks do not deadlock.
struct StageFigures {
  int slots = 0;
  int inputs = 0;
  int recompute_slots = 0;
};

struct ScheduleFigures {
  std::vector<StageFigures> stages;
  std::vector<int64_t> peak_bytes;  // by rank, in the unit of ScheduleMemory: the most alive at once on all its stages
  std::vector<int> unreduced;       // by rank: the most BACKWARD_WEIGHTs whose gradients wait for their REDUCE at once
};

// Replays all ranks' lists against each other until they end. Throws UsageError with the rule that is broken, the grid
// and an arrow at the first bad action: an action that breaks a rule whatever the other ranks do, one that exceeds a
// limit, one that is missing, or one that waits for ever (then with what each rank waits for).
ScheduleFigures verify(const PipelineSchedule& schedule, const ScheduleMemory& memory = {});

}  // namespace tessera
