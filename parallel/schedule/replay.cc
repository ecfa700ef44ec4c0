#include "parallel/schedule/replay.h"

#include <fmt/format.h>

#include <algorithm>

namespace tessera {
namespace {

PlayResult bad(std::string rule) { return {.kind = PlayResult::Kind::Bad, .rule = std::move(rule)}; }

PlayResult wait(int rank, const char* awaited, const int* buffer = nullptr) {
  return {.kind = PlayResult::Kind::Wait, .awaited = awaited, .rank = rank, .buffer = buffer};
}

PlayResult must_come_first(ActionKind kind) { return bad(fmt::format("{} must come first", name(kind))); }

// Why the next of a kind is not this microbatch.
PlayResult out_of_order(const Action& action, int next) {
  if (action.microbatch < next) return bad("it was done before");
  return bad(fmt::format("{} goes in microbatch order: {} comes next", name(action.kind), next));
}

// Whether the ranges cover `wanted`.
bool cover(std::vector<BlockRange> ranges, const BlockRange& wanted) {
  std::sort(ranges.begin(), ranges.end(), [](const BlockRange& a, const BlockRange& b) { return a.first < b.first; });
  int to = wanted.first;
  for (const BlockRange& r : ranges) {
    if (r.first <= to) to = std::max(to, r.last);
  }
  return to >= wanted.last;
}

bool overlap(const BlockRange& a, const BlockRange& b) { return a.first < b.last && b.first < a.last; }

bool is_forward_only(const PipelineSchedule& schedule) {
  for (const Schedule& list : schedule.ranks) {
    for (const Action& a : list) {
      if (a.kind != ActionKind::Forward && a.kind != ActionKind::SendForward && a.kind != ActionKind::ReceiveForward &&
          a.kind != ActionKind::Gather && a.kind != ActionKind::Release) {
        return false;
      }
    }
  }
  return true;
}

}  // namespace

std::vector<BufferCounts> most_alive(const PipelineSchedule& schedule) {
  std::vector<BufferCounts> most(schedule.stages()), now(schedule.stages());
  const bool forward_only = is_forward_only(schedule);
  for (const Schedule& list : schedule.ranks) {
    for (const Action& a : list) {
      if (a.stage < 0 || a.stage >= schedule.stages()) continue;  // the replay refuses it
      BufferCounts& alive = now[a.stage];
      if (a.kind == ActionKind::ReceiveForward) ++alive.inputs;
      if (a.kind == ActionKind::SendBackward) --alive.inputs;
      if (forward_only && a.kind == ActionKind::Forward) {
        if (a.blocks.first == 0) ++alive.outputs;
        most[a.stage].outputs = std::max(most[a.stage].outputs, alive.outputs);
        if (a.blocks.last == BlockRange::kToEnd) {
          if (schedule.receives(a.stage)) --alive.inputs;
          if (a.stage + 1 == schedule.stages()) --alive.outputs;
          if (a.stage > 0 && !schedule.receives(a.stage)) --now[a.stage - 1].outputs;
        }
      }
      if (forward_only && a.kind == ActionKind::SendForward) --alive.outputs;
      most[a.stage].inputs = std::max(most[a.stage].inputs, alive.inputs);
    }
  }
  return most;
}

ScheduleReplay::ScheduleReplay(const PipelineSchedule& schedule, const ScheduleMemory& memory,
                               const std::vector<BufferCounts>& buffers)
    : schedule_(schedule),
      memory_(memory),
      buffers_(buffers),
      forward_only_(is_forward_only(schedule)),
      stages_(schedule.stages()),
      ranks_(schedule.ranks.size()) {
  for (const Schedule& list : schedule.ranks) {
    for (const Action& a : list) {
      if (a.kind == ActionKind::Gather && a.stage >= 0 && a.stage < schedule.stages()) stages_[a.stage].gathers = true;
    }
  }
}

const StageBytes& ScheduleReplay::bytes(int stage) const {
  static constexpr StageBytes kSlots;
  return memory_.stages.empty() ? kSlots : memory_.stages[stage];
}

PlayResult ScheduleReplay::take(int stage, int64_t bytes) {
  const int rank = schedule_.rank_of_stage[stage];
  RankState& state = ranks_[rank];
  if (bytes > 0 && !memory_.limits.empty() && state.bytes + bytes > memory_.limits[rank]) {
    return bad(
        fmt::format("it makes {} alive on the rank, whose limit is {}", state.bytes + bytes, memory_.limits[rank]));
  }
  state.bytes += bytes;
  state.most_bytes = std::max(state.most_bytes, state.bytes);
  return {};
}

PlayResult ScheduleReplay::play(int rank, const Action& action) {
  if (ranks_[rank].stepped) return bad("nothing comes after STEP");
  if (action.kind == ActionKind::Norm || action.kind == ActionKind::Step) return norm_or_step(rank, action);
  if (action.stage < 0 || action.stage >= schedule_.stages()) {
    return bad(schedule_.stages() == 1 ? "there is one stage, 0"
                                       : fmt::format("there are stages 0 to {}", schedule_.stages() - 1));
  }
  if (schedule_.rank_of_stage[action.stage] != rank) {
    return bad(fmt::format("stage {} lies on rank {}", action.stage, schedule_.rank_of_stage[action.stage]));
  }
  if (!has_microbatch(action.kind)) {
    if (action.microbatch != -1) return bad("the action belongs to no microbatch");
    return action.kind == ActionKind::Reduce ? reduce(action) : gather_or_release(action);
  }
  if (action.microbatch < 0 || action.microbatch >= schedule_.microbatches) {
    return bad(fmt::format("there are microbatches 0 to {}", schedule_.microbatches - 1));
  }
  if (ranks_[rank].normed) return bad("NORM and STEP come after all microbatches");
  return play_stage(action);
}

PlayResult ScheduleReplay::play_stage(const Action& action) {
  const StageState& s = stages_[action.stage];
  const bool reads_weights = action.kind == ActionKind::Forward || action.kind == ActionKind::BackwardInput ||
                             action.kind == ActionKind::Recompute;
  if (reads_weights && s.gathers && !cover(s.gathered, action.blocks)) return must_come_first(ActionKind::Gather);
  switch (action.kind) {
    case ActionKind::Forward:
      return forward(action);
    case ActionKind::BackwardInput:
      return backward_input(action);
    case ActionKind::BackwardWeight:
      return backward_weight(action);
    case ActionKind::Recompute:
      return recompute(action);
    case ActionKind::Offload:
    case ActionKind::Fetch:
      return offload_or_fetch(action);
    default:
      return message(action);
  }
}

PlayResult ScheduleReplay::forward(const Action& action) {
  StageState& s = stages_[action.stage];
  const int m = action.microbatch;
  if (m != s.forward.microbatch) return out_of_order(action, s.forward.microbatch);
  if (action.blocks.first != s.forward.block) return bad(fmt::format("block {} comes next", s.forward.block));
  if (s.forward.block == 0 && action.stage > 0) {
    const StageState& before = stages_[action.stage - 1];
    if (schedule_.receives(action.stage)) {
      if (s.received_forward <= m) return must_come_first(ActionKind::ReceiveForward);
      if (before.sent_forward <= m) {
        return wait(schedule_.rank_of_stage[action.stage - 1], "the stage before has not sent its output");
      }
    } else if (before.forward.microbatch <= m) {
      return bad(fmt::format("FORWARD of stage {} must come first", action.stage - 1));
    }
  }
  if (s.forward.block == 0) {
    if (forward_only_ && schedule_.sends(action.stage)) {
      const StageState& next = stages_[action.stage + 1];
      const int taken_up = std::min(s.sent_forward, next.received_forward);
      if (m - taken_up >= buffers_[action.stage].outputs) {
        return wait(schedule_.rank_of_stage[action.stage + 1], "the output before it has not been taken up",
                    &buffers_[action.stage].outputs);
      }
    }
    if (const PlayResult result = take(action.stage, bytes(action.stage).slot); result.kind != PlayResult::Kind::Done) {
      return result;
    }
    s.most.slots = std::max(s.most.slots, ++s.slots);
  }
  s.forward.block = action.blocks.last;
  if (action.blocks.last != BlockRange::kToEnd) return {};
  s.forward = {m + 1, 0};
  if (!forward_only_) return {};
  // What it read may go, and what nobody will read.
  const auto let_slot_go = [&](int stage) {
    --stages_[stage].slots;
    take(stage, -bytes(stage).slot);
  };
  if (schedule_.receives(action.stage)) {
    --s.inputs;
    take(action.stage, -bytes(action.stage).input);
  } else if (action.stage > 0) {
    let_slot_go(action.stage - 1);
  }
  if (action.stage + 1 == schedule_.stages()) let_slot_go(action.stage);
  return {};
}

PlayResult ScheduleReplay::backward_input(const Action& action) {
  StageState& s = stages_[action.stage];
  const int m = action.microbatch;
  if (m != s.input.microbatch) return out_of_order(action, s.input.microbatch);
  if (action.blocks.last != s.input.block) return bad("blocks go from the last to the first");
  if (s.forward.microbatch <= m) return must_come_first(ActionKind::Forward);
  if (std::find(s.offloaded.begin(), s.offloaded.end(), m) != s.offloaded.end())
    return must_come_first(ActionKind::Fetch);
  if (s.input.block == BlockRange::kToEnd && action.stage + 1 < schedule_.stages()) {
    const StageState& next = stages_[action.stage + 1];
    if (schedule_.sends(action.stage)) {
      if (s.received_backward <= m) return must_come_first(ActionKind::ReceiveBackward);
      if (next.sent_backward <= m) {
        return wait(schedule_.rank_of_stage[action.stage + 1], "the next stage has not sent its gradient");
      }
    } else if (next.input.microbatch <= m) {
      return bad(fmt::format("BACKWARD_INPUT of stage {} must come first", action.stage + 1));
    }
  }
  s.input.block = action.blocks.first;
  if (action.blocks.first == 0) s.input = {m + 1, BlockRange::kToEnd};
  return {};
}

PlayResult ScheduleReplay::backward_weight(const Action& action) {
  StageState& s = stages_[action.stage];
  const int m = action.microbatch;
  if (m != s.weight.microbatch) return out_of_order(action, s.weight.microbatch);
  if (action.blocks.last != s.weight.block) return bad("blocks go from the last to the first");
  const bool has_gradient = s.input.microbatch > m || (s.input.microbatch == m && s.input.block <= action.blocks.first);
  if (!has_gradient) return must_come_first(ActionKind::BackwardInput);
  s.weight.block = action.blocks.first;
  if (!cover(s.unreduced, action.blocks)) {
    s.unreduced.push_back(action.blocks);
    RankState& rank = ranks_[schedule_.rank_of_stage[action.stage]];
    rank.most_unreduced = std::max(rank.most_unreduced, ++rank.unreduced);
  }
  std::erase_if(s.recomputed, [&](const Action& made) {
    const bool ends = made.microbatch == m && made.blocks.first >= action.blocks.first;
    if (ends) take(action.stage, -bytes(action.stage).recompute_slot);
    return ends;
  });
  if (action.blocks.first != 0) return {};
  s.weight = {m + 1, BlockRange::kToEnd};
  --s.slots;
  return take(action.stage, -bytes(action.stage).slot);
}

PlayResult ScheduleReplay::message(const Action& action) {
  StageState& s = stages_[action.stage];
  const int m = action.microbatch;
  const bool forth = action.kind == ActionKind::SendForward || action.kind == ActionKind::ReceiveBackward;  // to s + 1
  const int peer = action.stage + (forth ? 1 : -1);
  if (peer < 0 || peer >= schedule_.stages()) return bad(forth ? "there is no next stage" : "there is no stage before");
  if (forth ? !schedule_.sends(action.stage) : !schedule_.receives(action.stage)) {
    return bad(fmt::format("stage {} lies on the same rank: there is no message", peer));
  }
  const StageState& other = stages_[peer];
  int& next = action.kind == ActionKind::SendForward      ? s.sent_forward
              : action.kind == ActionKind::ReceiveForward ? s.received_forward
              : action.kind == ActionKind::SendBackward   ? s.sent_backward
                                                          : s.received_backward;
  if (m != next) return out_of_order(action, next);
  switch (action.kind) {
    case ActionKind::SendForward:
      if (s.forward.microbatch <= m) return must_come_first(ActionKind::Forward);
      if (forward_only_) {
        --s.slots;
        take(action.stage, -bytes(action.stage).slot);
      }
      break;
    case ActionKind::SendBackward:
      if (s.input.microbatch <= m) return must_come_first(ActionKind::BackwardInput);
      --s.inputs;
      take(action.stage, -bytes(action.stage).input);
      break;
    case ActionKind::ReceiveForward: {
      const int free = forward_only_ ? s.forward.microbatch : std::min(s.sent_backward, other.received_backward);
      if (m - free >= buffers_[action.stage].inputs) {
        return wait(schedule_.rank_of_stage[peer], "the gradient in the input that it reuses has not been taken up",
                    &buffers_[action.stage].inputs);
      }
      if (const PlayResult v = take(action.stage, bytes(action.stage).input); v.kind != PlayResult::Kind::Done)
        return v;
      ++s.inputs;
      break;
    }
    default:  // ReceiveBackward
      if (s.sent_forward <= m) return must_come_first(ActionKind::SendForward);
      if (std::find(s.offloaded.begin(), s.offloaded.end(), m) != s.offloaded.end()) {
        return must_come_first(ActionKind::Fetch);
      }
      if (other.received_forward <= m) return wait(schedule_.rank_of_stage[peer], "the output has not been taken up");
  }
  ++next;
  return {};
}

PlayResult ScheduleReplay::recompute(const Action& action) {
  StageState& s = stages_[action.stage];
  const int m = action.microbatch;
  if (s.forward.microbatch <= m) return must_come_first(ActionKind::Forward);
  if (std::find(s.offloaded.begin(), s.offloaded.end(), m) != s.offloaded.end()) {
    return must_come_first(ActionKind::Fetch);
  }
  const bool late = s.input.microbatch > m || (s.input.microbatch == m && s.input.block < action.blocks.last);
  if (late) return bad("it comes before BACKWARD_INPUT of the blocks");
  for (const Action& made : s.recomputed) {
    if (made.microbatch == m && overlap(made.blocks, action.blocks)) return bad("it was done before");
  }
  if (const PlayResult v = take(action.stage, bytes(action.stage).recompute_slot); v.kind != PlayResult::Kind::Done)
    return v;
  s.recomputed.push_back(action);
  s.most.recompute_slots = std::max(s.most.recompute_slots, static_cast<int>(s.recomputed.size()));
  return {};
}

PlayResult ScheduleReplay::offload_or_fetch(const Action& action) {
  StageState& s = stages_[action.stage];
  const int m = action.microbatch;
  const auto found = std::find(s.offloaded.begin(), s.offloaded.end(), m);
  if (action.kind == ActionKind::Offload) {
    if (s.forward.microbatch <= m) return must_come_first(ActionKind::Forward);
    if (schedule_.sends(action.stage) && s.sent_forward <= m) return must_come_first(ActionKind::SendForward);
    if (found != s.offloaded.end()) return bad("it was done before");
    if (s.input.microbatch > m || (s.input.microbatch == m && s.input.block != BlockRange::kToEnd)) {
      return bad("it comes before BACKWARD_INPUT");
    }
    s.offloaded.push_back(m);
    --s.slots;
    return take(action.stage, -bytes(action.stage).slot);
  }
  if (found == s.offloaded.end()) return must_come_first(ActionKind::Offload);
  if (const PlayResult v = take(action.stage, bytes(action.stage).slot); v.kind != PlayResult::Kind::Done) return v;
  s.offloaded.erase(found);
  s.most.slots = std::max(s.most.slots, ++s.slots);
  return {};
}

PlayResult ScheduleReplay::gather_or_release(const Action& action) {
  StageState& s = stages_[action.stage];
  RankState& rank = ranks_[schedule_.rank_of_stage[action.stage]];
  if (action.kind == ActionKind::Release) {
    const auto found = std::find(s.gathered.begin(), s.gathered.end(), action.blocks);
    if (found == s.gathered.end()) return must_come_first(ActionKind::Gather);
    s.gathered.erase(found);
    --rank.gathered;
    return take(action.stage, -bytes(action.stage).gathered);
  }
  for (const BlockRange& blocks : s.gathered) {
    if (overlap(blocks, action.blocks)) return bad("it was done before");
  }
  if (rank.gathered == kMostGathered)
    return bad(fmt::format("{} GATHERs of the rank wait for their RELEASE already", kMostGathered));
  if (const PlayResult v = take(action.stage, bytes(action.stage).gathered); v.kind != PlayResult::Kind::Done) return v;
  s.gathered.push_back(action.blocks);
  ++rank.gathered;
  return {};
}

PlayResult ScheduleReplay::reduce(const Action& action) {
  StageState& s = stages_[action.stage];
  RankState& rank = ranks_[schedule_.rank_of_stage[action.stage]];
  if (rank.normed) return bad("it comes before NORM");
  if (!cover(s.unreduced, action.blocks)) {
    if (s.weight.microbatch == schedule_.microbatches) return bad("it was done before");
    return bad(fmt::format("BACKWARD_WEIGHT of microbatch {} is missing", s.weight.microbatch));
  }
  std::vector<BlockRange> rest;
  for (const BlockRange& blocks : s.unreduced) {
    if (!overlap(blocks, action.blocks)) {
      rest.push_back(blocks);
      continue;
    }
    if (blocks.first < action.blocks.first) rest.push_back({blocks.first, action.blocks.first});
    if (action.blocks.last < blocks.last) rest.push_back({action.blocks.last, blocks.last});
  }
  rank.unreduced += static_cast<int>(rest.size()) - static_cast<int>(s.unreduced.size());
  s.unreduced = std::move(rest);
  return {};
}

// Why NORM cannot come yet, or nothing.
std::string ScheduleReplay::without_weight(int rank) const {
  for (int i = 0; i < schedule_.stages(); ++i) {
    if (schedule_.rank_of_stage[i] != rank || stages_[i].weight.microbatch == schedule_.microbatches) continue;
    return fmt::format("BACKWARD_WEIGHT of microbatch {} is missing", stages_[i].weight.microbatch);
  }
  return "";
}

PlayResult ScheduleReplay::norm_or_step(int rank, const Action& action) {
  RankState& state = ranks_[rank];
  if (action.microbatch != -1) return bad("the action belongs to no microbatch");
  if (action.kind == ActionKind::Norm) {
    if (state.normed) return bad("it was done before");
    if (const std::string rule = without_weight(rank); !rule.empty()) return bad(rule);
    if (state.unreduced > 0) return must_come_first(ActionKind::Reduce);
    state.normed = true;
  } else {
    if (!state.normed) return must_come_first(ActionKind::Norm);
    state.stepped = true;
  }
  return {};
}

std::string ScheduleReplay::missing(int rank) const {
  const auto lacks = [](ActionKind kind, int stage, int microbatch) {
    return fmt::format("{} of microbatch {}{} is missing", name(kind), microbatch,
                       stage == 0 ? "" : fmt::format(" on stage {}", stage));
  };
  const int all = schedule_.microbatches;
  for (int i = 0; i < schedule_.stages(); ++i) {
    if (schedule_.rank_of_stage[i] != rank) continue;
    const StageState& s = stages_[i];
    if (s.forward.microbatch < all) return lacks(ActionKind::Forward, i, s.forward.microbatch);
    if (schedule_.sends(i) && s.sent_forward < all) return lacks(ActionKind::SendForward, i, s.sent_forward);
    if (forward_only_) continue;
    if (s.input.microbatch < all) return lacks(ActionKind::BackwardInput, i, s.input.microbatch);
    if (schedule_.receives(i) && s.sent_backward < all) return lacks(ActionKind::SendBackward, i, s.sent_backward);
    if (s.weight.microbatch < all) return lacks(ActionKind::BackwardWeight, i, s.weight.microbatch);
  }
  if (forward_only_) return "";
  if (ranks_[rank].unreduced > 0) return "REDUCE is missing";
  if (!ranks_[rank].normed) return "NORM is missing";
  return ranks_[rank].stepped ? "" : "STEP is missing";
}

ScheduleFigures ScheduleReplay::figures() const {
  ScheduleFigures figures;
  for (int i = 0; i < schedule_.stages(); ++i) {
    figures.stages.push_back(stages_[i].most);
    figures.stages.back().inputs = buffers_[i].inputs;
    if (forward_only_ && schedule_.sends(i)) figures.stages.back().slots = buffers_[i].outputs;
  }
  for (const RankState& rank : ranks_) {
    figures.peak_bytes.push_back(rank.most_bytes);
    figures.unreduced.push_back(rank.most_unreduced);
  }
  return figures;
}

}  // namespace tessera
