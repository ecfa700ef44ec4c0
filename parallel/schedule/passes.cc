#include "parallel/schedule/passes.h"

#include <fmt/format.h>

#include <algorithm>

#include "parallel/schedule/blocks.h"
#include "parallel/schedule/insertions.h"
#include "parallel/schedule/verify.h"
#include "tensor/check.h"

namespace tessera {
namespace {

Schedule with_messages(const PipelineSchedule& schedule, int rank) {
  const Schedule& list = schedule.ranks[rank];
  Insertions insertions(list);
  // Where FORWARD of (stage, microbatch) ended, for stages that send their output.
  std::vector<size_t> forward_at(static_cast<size_t>(schedule.stages()) * schedule.microbatches, 0);
  for (size_t i = 0; i < list.size(); ++i) {
    const Action& a = list[i];
    TESSERA_CHECK(!is_message(a.kind), "the schedule has messages already");
    if (!is_compute(a.kind)) continue;
    const size_t key = static_cast<size_t>(a.stage) * schedule.microbatches + a.microbatch;
    const auto with = [&](ActionKind kind) {
      return Action{.kind = kind, .stage = a.stage, .microbatch = a.microbatch};
    };
    if (a.kind == ActionKind::Forward) {
      if (a.blocks.first == 0 && schedule.receives(a.stage)) {
        insertions.before(compute_before(list, i), with(ActionKind::ReceiveForward));
      }
      if (a.blocks.last == BlockRange::kToEnd && schedule.sends(a.stage)) {
        forward_at[key] = i;
        insertions.after(i, with(ActionKind::SendForward));
      }
    } else if (a.kind == ActionKind::BackwardInput) {
      if (a.blocks.last == BlockRange::kToEnd && schedule.sends(a.stage)) {
        const size_t at = compute_before(list, i);
        if (at > forward_at[key]) {
          insertions.before(at, with(ActionKind::ReceiveBackward));
        } else {
          insertions.after(forward_at[key], with(ActionKind::ReceiveBackward));
        }
      }
      if (a.blocks.first == 0 && schedule.receives(a.stage)) insertions.after(i, with(ActionKind::SendBackward));
    }
  }
  return insertions.result();
}

}  // namespace

PipelineSchedule insert_messages(PipelineSchedule schedule) {
  std::vector<Schedule> ranks;
  for (int r = 0; r < static_cast<int>(schedule.ranks.size()); ++r) ranks.push_back(with_messages(schedule, r));
  schedule.ranks = std::move(ranks);
  return schedule;
}

PipelineSchedule append_step(PipelineSchedule schedule) {
  const int last = schedule.stages() - 1;
  for (int r = 0; r < static_cast<int>(schedule.ranks.size()); ++r) {
    Schedule& list = schedule.ranks[r];
    for (int s = 0; s <= last; ++s) {
      if (schedule.rank_of_stage[s] != r) continue;
      const auto reduces = [&](const Action& a) { return a.kind == ActionKind::Reduce && a.stage == s; };
      if (std::any_of(list.begin(), list.end(), reduces)) continue;
      const auto weight = std::find_if(list.rbegin(), list.rend(), [&](const Action& a) {
        return a.kind == ActionKind::BackwardWeight && a.stage == s;
      });
      // A list without it is verify()'s to refuse.
      list.insert(weight == list.rend() ? list.end() : weight.base(), {.kind = ActionKind::Reduce, .stage = s});
    }
    list.push_back({.kind = ActionKind::Norm});
    list.push_back({.kind = ActionKind::Step});
  }
  return schedule;
}

PipelineSchedule forward_only_schedule(std::vector<int> rank_of_stage, int microbatches, int group,
                                       const std::vector<int>& blocks) {
  TESSERA_CHECK(microbatches >= 1 && group >= 1, fmt::format("{} microbatches by {}", microbatches, group));
  PipelineSchedule schedule{.microbatches = microbatches, .rank_of_stage = std::move(rank_of_stage), .ranks = {}};
  schedule.ranks.resize(*std::max_element(schedule.rank_of_stage.begin(), schedule.rank_of_stage.end()) + 1);
  for (int begin = 0; begin < microbatches; begin += group) {
    for (int s = 0; s < schedule.stages(); ++s) {
      for (int m = begin; m < std::min(begin + group, microbatches); ++m) {
        schedule.ranks[schedule.rank_of_stage[s]].push_back({.kind = ActionKind::Forward, .stage = s, .microbatch = m});
      }
    }
  }
  if (!blocks.empty()) schedule = insert_gathers(std::move(schedule), blocks);
  return insert_messages(std::move(schedule));
}

int forward_only_group(const std::vector<int>& rank_of_stage, const std::vector<StageFigures>& training) {
  int group = *std::max_element(rank_of_stage.begin(), rank_of_stage.end()) + 1;
  const auto fits = [&] {
    // From the second group on all are alike.
    const ScheduleFigures needs = verify(forward_only_schedule(rank_of_stage, 2 * group, group));
    return std::equal(training.begin(), training.end(), needs.stages.begin(), needs.stages.end(),
                      [](const StageFigures& has, const StageFigures& need) { return need.slots <= has.slots; });
  };
  while (group > 1 && !fits()) --group;
  return group;
}

}  // namespace tessera
