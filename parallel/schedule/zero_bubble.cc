#include "parallel/schedule/zero_bubble.h"

#include <algorithm>

#include "parallel/schedule/weights.h"
#include "tensor/check.h"

namespace tessera {
namespace {

PipelineSchedule with_weights(int ranks, int microbatches, int warmup, const ScheduleCosts& costs) {
  const std::vector<int64_t> limits(ranks, warmup * (ranks - 1) + 1);
  std::optional<PlacedWeights> placed =
      place_weights(forward_backward_order(ranks, microbatches, warmup), costs, {.stages = {}, .limits = limits});
  TESSERA_CHECK(placed.has_value(), "a warm-up of 1F1B keeps to its own memory");
  return std::move(placed->schedule);
}

}  // namespace

PipelineSchedule forward_backward_order(int ranks, int microbatches, int warmup) {
  PipelineSchedule schedule{.microbatches = microbatches, .rank_of_stage = loop_placement(ranks, 1), .ranks = {}};
  schedule.ranks.resize(ranks);
  for (int r = 0; r < ranks; ++r) {
    Schedule& list = schedule.ranks[r];
    int forwards = 0;
    const auto forward = [&] { list.push_back({.kind = ActionKind::Forward, .stage = r, .microbatch = forwards++}); };
    while (forwards < std::min(warmup * (ranks - 1 - r), microbatches)) forward();
    for (int m = 0; m < microbatches; ++m) {
      if (forwards < microbatches) forward();
      list.push_back({.kind = ActionKind::BackwardInput, .stage = r, .microbatch = m});
    }
  }
  return schedule;
}

PipelineSchedule zb_h1_schedule(int ranks, int microbatches, const ScheduleCosts& costs) {
  return with_weights(ranks, microbatches, 1, costs);
}

PipelineSchedule zb_h2_schedule(int ranks, int microbatches, const ScheduleCosts& costs) {
  return with_weights(ranks, microbatches, 2, costs);
}

}  // namespace tessera
