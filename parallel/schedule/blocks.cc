#include "parallel/schedule/blocks.h"

#include <fmt/format.h>

#include <algorithm>

#include "parallel/schedule/insertions.h"
#include "tensor/check.h"

namespace tessera {
namespace {

BlockRange range(int first, int last, int blocks) { return {first, last == blocks ? BlockRange::kToEnd : last}; }

Action with_blocks(Action action, BlockRange blocks) {
  action.blocks = blocks;
  return action;
}

Action on_blocks(ActionKind kind, const Action& of, BlockRange blocks) {
  return {.kind = kind, .stage = of.stage, .microbatch = has_microbatch(kind) ? of.microbatch : -1, .blocks = blocks};
}

// The blocks of an action, in ranges of at most `size`, from the last to the first.
std::vector<BlockRange> downwards(const Action& action, int blocks, int size) {
  std::vector<BlockRange> ranges;
  for (int last = std::min(action.blocks.last, blocks); last > action.blocks.first; last -= size) {
    ranges.push_back(range(std::max(action.blocks.first, last - size), last, blocks));
  }
  return ranges;
}

void check_blocks(const PipelineSchedule& schedule, const std::vector<int>& blocks) {
  TESSERA_CHECK(static_cast<int>(blocks.size()) == schedule.stages(), "a number of blocks for every stage");
  TESSERA_CHECK(std::all_of(blocks.begin(), blocks.end(), [](int n) { return n >= 1; }), "a stage has a block or more");
}

// Blocks to recompute one by one, the others as long as they go, from the last to the first.
std::vector<std::pair<BlockRange, bool>> segments(const std::vector<bool>& plan) {
  const int blocks = static_cast<int>(plan.size());
  std::vector<std::pair<BlockRange, bool>> found;
  for (int last = blocks; last > 0;) {
    int first = last - 1;
    while (!plan[last - 1] && first > 0 && !plan[first - 1]) --first;
    found.push_back({range(first, last, blocks), plan[last - 1]});
    last = first;
  }
  return found;
}

Schedule with_recompute(const Schedule& list, const std::vector<std::vector<bool>>& plan) {
  Schedule result;
  for (size_t i = 0; i < list.size(); ++i) {
    const Action& a = list[i];
    const bool planned = a.kind == ActionKind::BackwardInput &&
                         std::find(plan[a.stage].begin(), plan[a.stage].end(), true) != plan[a.stage].end();
    if (!planned) {
      result.push_back(a);
      continue;
    }
    const Action weight = on_blocks(ActionKind::BackwardWeight, a, {});
    const bool at_once = i + 1 < list.size() && list[i + 1] == weight;
    for (const auto& [blocks, recomputed] : segments(plan[a.stage])) {
      if (recomputed) result.push_back(on_blocks(ActionKind::Recompute, a, blocks));
      result.push_back(with_blocks(a, blocks));
      if (at_once) result.push_back(with_blocks(weight, blocks));
    }
    if (at_once) ++i;
  }
  return result;
}

// Single blocks of what reads weights.
Schedule block_by_block(const Schedule& list, const std::vector<int>& blocks) {
  Schedule result;
  for (const Action& a : list) {
    const bool reads = takes_time(a.kind) && a.kind != ActionKind::BackwardWeight;
    if (!reads) {
      result.push_back(a);
      continue;
    }
    std::vector<BlockRange> ranges = downwards(a, blocks[a.stage], 1);
    if (a.kind == ActionKind::Forward) std::reverse(ranges.begin(), ranges.end());
    for (const BlockRange& each : ranges) result.push_back(with_blocks(a, each));
  }
  return result;
}

Schedule with_gathers(const Schedule& list) {
  Insertions insertions(list);
  std::vector<size_t> readers;
  for (size_t i = 0; i < list.size(); ++i) {
    if (takes_time(list[i].kind) && list[i].kind != ActionKind::BackwardWeight) readers.push_back(i);
  }
  const auto same_block = [&](size_t a, size_t b) {
    return list[a].stage == list[b].stage && list[a].blocks == list[b].blocks;
  };
  for (size_t k = 0; k < readers.size(); ++k) {
    const Action& a = list[readers[k]];
    if (k == 0) insertions.before(readers[k], on_blocks(ActionKind::Gather, a, a.blocks));
    const bool stays = k + 1 < readers.size() && same_block(readers[k], readers[k + 1]);
    if (stays) continue;
    if (k + 1 < readers.size()) {
      const Action& next = list[readers[k + 1]];
      insertions.before(readers[k], on_blocks(ActionKind::Gather, next, next.blocks));
    }
    insertions.after(readers[k], on_blocks(ActionKind::Release, a, a.blocks));
  }
  return insertions.result();
}

Schedule with_offload(const Schedule& list, size_t least) {
  Insertions insertions(list);
  for (size_t i = 0; i < list.size(); ++i) {
    const Action& forward = list[i];
    if (forward.kind != ActionKind::Forward || forward.blocks.last != BlockRange::kToEnd) continue;
    size_t between = 0, at = i + 1;
    for (; at < list.size(); ++at) {
      if (!takes_time(list[at].kind)) continue;
      if (list[at].stage == forward.stage && list[at].microbatch == forward.microbatch) break;
      ++between;
    }
    if (at == list.size() || between < least) continue;
    const size_t ahead = compute_before(list, at);
    if (ahead <= i) continue;
    insertions.after(i, on_blocks(ActionKind::Offload, forward, {}));
    insertions.before(ahead, on_blocks(ActionKind::Fetch, forward, {}));
  }
  return insertions.result();
}

}  // namespace

PipelineSchedule insert_recompute(PipelineSchedule schedule, const std::vector<std::vector<bool>>& plan) {
  TESSERA_CHECK(static_cast<int>(plan.size()) == schedule.stages(), "a plan for every stage");
  for (Schedule& list : schedule.ranks) list = with_recompute(list, plan);
  return schedule;
}

PipelineSchedule insert_reductions(PipelineSchedule schedule, const std::vector<int>& blocks, int bucket,
                                   ReduceOf which) {
  check_blocks(schedule, blocks);
  TESSERA_CHECK(bucket >= 1, fmt::format("buckets of {} blocks", bucket));
  const auto reduced = [&](const Action& a) {
    return which == ReduceOf::EachMicrobatch || a.microbatch + 1 == schedule.microbatches;
  };
  for (Schedule& list : schedule.ranks) {
    Schedule result;
    for (size_t i = 0; i < list.size(); ++i) {
      const Action& a = list[i];
      const bool together = a.kind == ActionKind::BackwardInput && reduced(a) && !schedule.receives(a.stage) &&
                            i + 1 < list.size() && list[i + 1] == on_blocks(ActionKind::BackwardWeight, a, a.blocks);
      if (together) {
        for (const BlockRange& each : downwards(a, blocks[a.stage], bucket)) {
          result.push_back(with_blocks(a, each));
          result.push_back(with_blocks(list[i + 1], each));
          result.push_back(on_blocks(ActionKind::Reduce, a, each));
        }
        ++i;
        continue;
      }
      if (a.kind != ActionKind::BackwardWeight || !reduced(a)) {
        result.push_back(a);
        continue;
      }
      for (const BlockRange& each : downwards(a, blocks[a.stage], bucket)) {
        result.push_back(with_blocks(a, each));
        result.push_back(on_blocks(ActionKind::Reduce, a, each));
      }
    }
    list = std::move(result);
  }
  return schedule;
}

PipelineSchedule insert_gathers(PipelineSchedule schedule, const std::vector<int>& blocks) {
  check_blocks(schedule, blocks);
  for (Schedule& list : schedule.ranks) list = with_gathers(block_by_block(list, blocks));
  return schedule;
}

PipelineSchedule insert_offload(PipelineSchedule schedule, int least) {
  TESSERA_CHECK(least >= 2, fmt::format("offload across {} actions", least));
  for (Schedule& list : schedule.ranks) list = with_offload(list, least);
  return schedule;
}

}  // namespace tessera
