// The state of a replay: which action may come next on a rank, given what all ranks have done (schedule_verify.h states
// the rules).
#pragma once

#include <string>
#include <vector>

#include "parallel/schedule/verify.h"

namespace tessera {

struct PlayResult {
  enum class Kind : uint8_t { Done, Wait, Bad };
  Kind kind = Kind::Done;
  std::string rule = {};          // Bad: what is broken
  const char* awaited = nullptr;  // Wait: for what
  int rank = -1;                  // Wait: for whose action
  const int* buffer = nullptr;    // Wait: for one of these many buffers
};

// Buffers whose reuse waits for another rank.
struct BufferCounts {
  int inputs = 0;
  int outputs = 0;  // forward only: slots
};

// The most alive at once by the order of the lists alone, by stage.
std::vector<BufferCounts> most_alive(const PipelineSchedule& schedule);

class ScheduleReplay {
 public:
  // All must outlive the replay.
  ScheduleReplay(const PipelineSchedule& schedule, const ScheduleMemory& memory,
                 const std::vector<BufferCounts>& buffers);

  // Does the action, or says why it may not come now (Wait) or ever (Bad); then nothing is changed.
  PlayResult play(int rank, const Action& action);

  // What is missing at the end of the rank's list, or nothing.
  std::string missing(int rank) const;

  ScheduleFigures figures() const;

 private:
  // Progress of one kind through microbatches and their blocks.
  struct Progress {
    int microbatch = 0;  // done before this one
    int block = 0;       // and in this one the blocks up to (FORWARD) or down to this one
  };
  struct StageState {
    Progress forward, input{0, BlockRange::kToEnd}, weight{0, BlockRange::kToEnd};
    int sent_forward = 0, received_forward = 0, sent_backward = 0, received_backward = 0;
    bool gathers = false;
    std::vector<int> offloaded;      // microbatches
    std::vector<Action> recomputed;  // and not let go
    std::vector<BlockRange> gathered, unreduced;
    int slots = 0, inputs = 0;  // alive now, by the list
    StageFigures most;
  };
  struct RankState {
    int64_t bytes = 0, most_bytes = 0;
    int gathered = 0;
    int unreduced = 0, most_unreduced = 0;
    bool normed = false, stepped = false;
  };

  PlayResult play_stage(const Action& action);
  PlayResult forward(const Action& action);
  PlayResult backward_input(const Action& action);
  PlayResult backward_weight(const Action& action);
  PlayResult message(const Action& action);
  PlayResult recompute(const Action& action);
  PlayResult offload_or_fetch(const Action& action);
  PlayResult gather_or_release(const Action& action);
  PlayResult reduce(const Action& action);
  PlayResult norm_or_step(int rank, const Action& action);
  // Takes (negative: lets go) memory of a stage's rank; refused when it exceeds the limit.
  PlayResult take(int stage, int64_t bytes);
  const StageBytes& bytes(int stage) const;
  std::string without_weight(int rank) const;

  const PipelineSchedule& schedule_;
  const ScheduleMemory& memory_;
  const std::vector<BufferCounts>& buffers_;
  bool forward_only_ = true;
  std::vector<StageState> stages_;
  std::vector<RankState> ranks_;
};

}  // namespace tessera
