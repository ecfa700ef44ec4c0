#include "parallel/schedule/interleaved.h"

#include <algorithm>

namespace tessera {
namespace {

struct Visit {
  int stage, microbatch;
};

// The order in which a rank takes microbatches through its chunks.
std::vector<Visit> visits(int ranks, int rank, int microbatches, int chunks, int group, bool backward) {
  std::vector<Visit> order;
  for (int begin = 0; begin < microbatches; begin += group) {
    for (int c = 0; c < chunks; ++c) {
      const int stage = (backward ? chunks - 1 - c : c) * ranks + rank;
      for (int m = begin; m < std::min(begin + group, microbatches); ++m) order.push_back({stage, m});
    }
  }
  return order;
}

// Forwards and backwards in turn after `warmup` forwards.
Schedule alternate(const std::vector<Visit>& forward, const std::vector<Visit>& backward, size_t warmup) {
  Schedule list;
  list.reserve(3 * forward.size());
  size_t done = 0;
  const auto go_forward = [&] {
    list.push_back({.kind = ActionKind::Forward, .stage = forward[done].stage, .microbatch = forward[done].microbatch});
    ++done;
  };
  while (done < std::min(warmup, forward.size())) go_forward();
  for (const Visit& v : backward) {
    if (done < forward.size()) go_forward();
    list.push_back({.kind = ActionKind::BackwardInput, .stage = v.stage, .microbatch = v.microbatch});
    list.push_back({.kind = ActionKind::BackwardWeight, .stage = v.stage, .microbatch = v.microbatch});
  }
  return list;
}

// Whether the lists run to their ends when each action waits for the one of the neighbouring stage.
bool runs(const PipelineSchedule& schedule) {
  std::vector<int> forwards(schedule.stages(), 0), backwards(schedule.stages(), 0);  // microbatches done
  std::vector<size_t> at(schedule.ranks.size(), 0);
  const auto ready = [&](const Action& a) {
    const int m = a.microbatch;
    if (a.kind == ActionKind::Forward) return a.stage == 0 || forwards[a.stage - 1] > m;
    if (a.kind == ActionKind::BackwardInput) {
      return forwards[a.stage] > m && (a.stage + 1 == schedule.stages() || backwards[a.stage + 1] > m);
    }
    return true;
  };
  for (bool moved = true; moved;) {
    moved = false;
    for (size_t r = 0; r < at.size(); ++r) {
      const Schedule& list = schedule.ranks[r];
      for (; at[r] < list.size() && ready(list[at[r]]); ++at[r], moved = true) {
        if (list[at[r]].kind == ActionKind::Forward) ++forwards[list[at[r]].stage];
        if (list[at[r]].kind == ActionKind::BackwardInput) ++backwards[list[at[r]].stage];
      }
    }
  }
  for (size_t r = 0; r < at.size(); ++r) {
    if (at[r] < schedule.ranks[r].size()) return false;
  }
  return true;
}

PipelineSchedule placed_in_loop(int ranks, int microbatches, int chunks) {
  return {.microbatches = microbatches, .rank_of_stage = loop_placement(ranks, chunks), .ranks = {}};
}

}  // namespace

PipelineSchedule gpipe_schedule(int ranks, int microbatches) {
  PipelineSchedule schedule = placed_in_loop(ranks, microbatches, 1);
  for (int r = 0; r < ranks; ++r) {
    const std::vector<Visit> order = visits(ranks, r, microbatches, 1, microbatches, false);
    schedule.ranks.push_back(alternate(order, order, order.size()));
  }
  return schedule;
}

PipelineSchedule one_forward_one_backward_schedule(int ranks, int microbatches) {
  PipelineSchedule schedule = placed_in_loop(ranks, microbatches, 1);
  for (int r = 0; r < ranks; ++r) {
    const std::vector<Visit> order = visits(ranks, r, microbatches, 1, microbatches, false);
    schedule.ranks.push_back(alternate(order, order, ranks - 1 - r));
  }
  return schedule;
}

PipelineSchedule interleaved_schedule(int ranks, int microbatches, int chunks, int group) {
  if (chunks == 1) return one_forward_one_backward_schedule(ranks, microbatches);
  group = std::min(group, microbatches);
  PipelineSchedule schedule = placed_in_loop(ranks, microbatches, chunks);
  for (int more = 0;; ++more) {
    schedule.ranks.clear();
    for (int r = 0; r < ranks; ++r) {
      schedule.ranks.push_back(alternate(visits(ranks, r, microbatches, chunks, group, false),
                                         visits(ranks, r, microbatches, chunks, group, true),
                                         static_cast<size_t>(chunks - 1) * group + 2 * (ranks - 1 - r) + more));
    }
    // With all forwards first there is nothing left to wait for in a circle.
    if (more >= microbatches * chunks || runs(schedule)) return schedule;
  }
}

}  // namespace tessera
