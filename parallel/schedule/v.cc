#include "parallel/schedule/v.h"

#include <algorithm>
#include <deque>

#include "parallel/schedule/weights.h"
#include "tensor/check.h"

namespace tessera {
namespace {

// Writes one rank's list: each kind of each of its stages takes the next microbatch.
class Writer {
 public:
  Writer(int ranks, int rank) : stage_{rank, 2 * ranks - 1 - rank} {}

  enum Half { kA, kB };  // the rank's stage on the way down, and back

  void forward(Half half) { put(ActionKind::Forward, half, forwards_[half]++); }
  // BACKWARD_INPUT; its BACKWARD_WEIGHT is owed.
  void input(Half half) {
    put(ActionKind::BackwardInput, half, inputs_[half]);
    owed_.push_back({.kind = ActionKind::BackwardWeight, .stage = stage_[half], .microbatch = inputs_[half]++});
  }
  // The oldest BACKWARD_WEIGHT that is owed.
  void weight() {
    TESSERA_CHECK(!owed_.empty(), "no BACKWARD_WEIGHT is owed");
    list_.push_back(owed_.front());
    owed_.pop_front();
  }
  void backward(Half half) {
    input(half);
    weight();
  }
  int forwards(Half half) const { return forwards_[half]; }
  int inputs(Half half) const { return inputs_[half]; }
  bool owes() const { return !owed_.empty(); }

  // Without the microbatches from `microbatches` on.
  Schedule list(int microbatches) const {
    Schedule kept;
    std::copy_if(list_.begin(), list_.end(), std::back_inserter(kept),
                 [&](const Action& a) { return a.microbatch < microbatches; });
    return kept;
  }

 private:
  void put(ActionKind kind, Half half, int m) {
    list_.push_back({.kind = kind, .stage = stage_[half], .microbatch = m});
  }

  int stage_[2];
  int forwards_[2] = {0, 0}, inputs_[2] = {0, 0};
  std::deque<Action> owed_;
  Schedule list_;
};

constexpr Writer::Half kA = Writer::kA, kB = Writer::kB;

// The order of FORWARD and BACKWARD_INPUT of ZB-V on one rank, for n >= 2 * ranks - 1 microbatches.
void write_zb_v(Writer& w, int ranks, int rank, int n) {
  // Down until the first microbatch comes back up; then what has come back and what may follow it in turn.
  for (int i = 0; i < 2 * (ranks - rank) - 1; ++i) w.forward(kA);
  for (int i = 0; i < rank; ++i) {
    w.forward(kB);
    w.forward(kA);
  }
  for (int i = 0; i < ranks - rank; ++i) {
    w.forward(kB);
    w.input(kB);
  }
  while (w.forwards(kB) < n) {
    if (w.forwards(kA) < n) w.forward(kA);
    w.input(kA);
    w.forward(kB);
    w.input(kB);
  }
  while (w.inputs(kA) < n) {
    w.input(kA);
    if (w.inputs(kB) < n) w.input(kB);
  }
}

// For n >= 2 * ranks microbatches.
void write_dualpipe_v(Writer& w, int ranks, int rank, int n) {
  const int below = ranks - 1 - rank;  // ranks between this one and the turn
  for (int i = 0; i < 2 * below; ++i) w.forward(kA);
  for (int i = 0; i <= rank; ++i) {
    w.forward(kA);
    w.forward(kB);
  }
  for (int i = 0; i < below; ++i) {
    w.backward(kB);
    w.forward(kB);
  }
  for (int i = 0; i < n - 2 * ranks + rank + 1; ++i) {
    w.forward(kA);
    w.backward(kB);
    w.forward(kB);
    w.backward(kA);
  }
  for (int i = 0; i < below; ++i) {
    w.backward(kB);
    w.forward(kB);
    w.backward(kA);
  }
  // From the middle on BACKWARD_WEIGHT is put off, for the time when gradients come one by one.
  const int half = (rank + 1) / 2;
  bool apart = false;
  const auto backward = [&](Writer::Half which) { apart ? w.input(which) : w.backward(which); };
  for (int i = 0; i <= rank; ++i) {
    if (i == half && rank % 2 == 1) apart = true;
    backward(kB);
    if (i == half && rank % 2 == 0) apart = true;
    backward(kA);
  }
  for (int i = 0; i < below; ++i) {
    w.weight();
    w.input(kA);
  }
  while (w.owes()) w.weight();
}

template <class Write>
PipelineSchedule written(int ranks, int microbatches, int least, Write&& write) {
  PipelineSchedule schedule{.microbatches = microbatches, .rank_of_stage = v_placement(ranks), .ranks = {}};
  for (int r = 0; r < ranks; ++r) {
    Writer writer(ranks, r);
    write(writer, ranks, r, std::max(least, microbatches));
    schedule.ranks.push_back(writer.list(microbatches));
  }
  return schedule;
}

}  // namespace

PipelineSchedule zb_v_schedule(int ranks, int microbatches, const ScheduleCosts& costs) {
  std::optional<PlacedWeights> placed = place_weights(written(ranks, microbatches, 2 * ranks - 1, write_zb_v), costs,
                                                      {.stages = {}, .limits = std::vector<int64_t>(ranks, 2 * ranks)});
  TESSERA_CHECK(placed.has_value(), "ZB-V keeps to the memory of 1F1B");
  return std::move(placed->schedule);
}

PipelineSchedule dualpipe_v_schedule(int ranks, int microbatches) {
  return written(ranks, microbatches, 2 * ranks, write_dualpipe_v);
}

}  // namespace tessera
