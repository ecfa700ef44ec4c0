#include "parallel/schedule/controllable.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <climits>
#include <optional>
#include <tuple>

#include "parallel/schedule/weights.h"
#include "tensor/check.h"

namespace tessera {
namespace {

constexpr int kPeriod = 6;

// When a rank does the six passes of microbatch 0.
struct Passes {
  int forward_a, forward_b, input_b, input_a, weight_b, weight_a;
};

using Block = std::vector<Passes>;  // by rank

// The first time after `after` whose remainder is free.
int take_free(std::array<bool, kPeriod>& taken, int after) {
  int time = after + 1;
  while (taken[time % kPeriod]) ++time;
  taken[time % kPeriod] = true;
  return time;
}

// The block of these offsets, with the microbatch held back by turn[0] at the bottom, turn[1] at the top, turn[2] at
// the bottom. Nothing if it does not fit with its repetitions.
std::optional<Block> make_block(int ranks, const std::array<int, 4>& offset, const std::array<int, 3>& turn) {
  const auto [d_fa, d_fb, d_bb, d_ba] = offset;
  Block block;
  const int last = ranks - 1;
  for (int r = 0; r < ranks; ++r) {
    Passes p{};
    p.forward_a = d_fa * r;
    p.forward_b = d_fa * last + turn[0] + d_fb * (last - r);
    p.input_b = d_fa * last + turn[0] + d_fb * last + turn[1] + d_bb * r;
    p.input_a = d_fa * last + turn[0] + d_fb * last + turn[1] + d_bb * last + turn[2] + d_ba * (last - r);
    std::array<bool, kPeriod> taken{};
    for (int time : {p.forward_a, p.forward_b, p.input_b, p.input_a}) {
      if (taken[time % kPeriod]) return {};
      taken[time % kPeriod] = true;
    }
    p.weight_b = take_free(taken, p.input_b);
    p.weight_a = take_free(taken, p.input_a);
    block.push_back(p);
  }
  return block;
}

// The most slots alive at once when the block is repeated for ever.
int slots(const Block& block) {
  // Of the repetitions, those that at time `now` are between their passes at `from` and `to`.
  const auto alive = [](int from, int to, int now) {
    return (to - now + kPeriod) / kPeriod - (from - 1 - now + kPeriod) / kPeriod;
  };
  int most = 0;
  for (const Passes& p : block) {
    for (int now = 0; now < kPeriod; ++now) {
      most = std::max(most, alive(p.forward_a, p.weight_a, now) + alive(p.forward_b, p.weight_b, now));
    }
  }
  return most;
}

// The block with the least memory, then the shortest; empty if none fits.
Block best_block(int ranks, int offset) {
  Block best;
  std::tuple<int, int> least{INT_MAX, INT_MAX};
  for (int d_fa = 1; d_fa < offset; ++d_fa) {
    for (int d_fb = 1; d_fb < offset; ++d_fb) {
      for (int turns = 0; turns < kPeriod * kPeriod * kPeriod; ++turns) {
        const std::array<int, 3> turn = {1 + turns % kPeriod, 1 + turns / kPeriod % kPeriod,
                                         1 + turns / kPeriod / kPeriod};
        const std::optional<Block> block = make_block(ranks, {d_fa, d_fb, offset - d_fb, offset - d_fa}, turn);
        if (!block) continue;
        const std::tuple<int, int> memory_and_length{slots(*block), block->front().input_a};
        if (memory_and_length < least) {
          least = memory_and_length;
          best = *block;
        }
      }
    }
  }
  return best;
}

PipelineSchedule with_weights(int ranks, int microbatches, const ScheduleCosts& costs, int offset, int limit) {
  const std::optional<BlockOrder> block = building_block_order(ranks, microbatches, offset);
  TESSERA_CHECK(block.has_value() && block->slots <= limit, fmt::format("no block of {} slots", limit));
  std::optional<PlacedWeights> placed =
      place_weights(block->order, costs, {.stages = {}, .limits = std::vector<int64_t>(ranks, limit)});
  TESSERA_CHECK(placed.has_value(), "a building block keeps to its own memory");
  return std::move(placed->schedule);
}

}  // namespace

std::optional<BlockOrder> building_block_order(int ranks, int microbatches, int offset) {
  const Block block = best_block(ranks, offset);
  if (block.empty()) return {};
  BlockOrder result;
  result.slots = slots(block);
  result.order = {.microbatches = microbatches, .rank_of_stage = v_placement(ranks), .ranks = {}};
  for (int r = 0; r < ranks; ++r) {
    const Passes& p = block[r];
    const int b = 2 * ranks - 1 - r;
    std::vector<std::pair<int, Action>> timed;
    for (int m = 0; m < microbatches; ++m) {
      timed.push_back({p.forward_a + kPeriod * m, {.kind = ActionKind::Forward, .stage = r, .microbatch = m}});
      timed.push_back({p.forward_b + kPeriod * m, {.kind = ActionKind::Forward, .stage = b, .microbatch = m}});
      timed.push_back({p.input_b + kPeriod * m, {.kind = ActionKind::BackwardInput, .stage = b, .microbatch = m}});
      timed.push_back({p.input_a + kPeriod * m, {.kind = ActionKind::BackwardInput, .stage = r, .microbatch = m}});
    }
    std::sort(timed.begin(), timed.end(), [](const auto& x, const auto& y) { return x.first < y.first; });
    Schedule& list = result.order.ranks.emplace_back();
    for (const auto& [time, action] : timed) list.push_back(action);
  }
  return result;
}

PipelineSchedule v_half_schedule(int ranks, int microbatches, const ScheduleCosts& costs) {
  return with_weights(ranks, microbatches, costs, 3, 2 * ((ranks + 2) / 2));
}

PipelineSchedule v_min_schedule(int ranks, int microbatches, const ScheduleCosts& costs) {
  return with_weights(ranks, microbatches, costs, 2, 2 * ((ranks + 4) / 3));
}

}  // namespace tessera
