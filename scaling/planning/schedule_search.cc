#include "scaling/planning/schedule_search.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <optional>

#include "parallel/schedule/controllable.h"
#include "parallel/schedule/interleaved.h"
#include "parallel/schedule/v.h"
#include "parallel/schedule/weights.h"
#include "scaling/planning/schedule_exact.h"
#include "scaling/planning/simulate.h"
#include "tensor/check.h"

namespace tessera {
namespace {

class Search {
 public:
  explicit Search(const SearchRequest& request) : request_(request) {
    const int stages = static_cast<int>(request.rank_of_stage.size());
    ranks_ = 1 + *std::max_element(request.rank_of_stage.begin(), request.rank_of_stage.end());
    chunks_ = stages / ranks_;
    for (int r = 0; r < ranks_; ++r) {
      const int64_t slot = request.memory.stages.empty() ? 1 : request.memory.stages[r].slot;
      const int64_t most = static_cast<int64_t>(request.microbatches) * chunks_;
      slots_.push_back(request.memory.limits.empty() || slot == 0 ? most
                                                                  : std::min(most, request.memory.limits[r] / slot));
    }
  }

  FoundSchedule run() {
    if (const auto none = std::min_element(slots_.begin(), slots_.end()); *none < chunks_) refuse(chunks_);
    if (chunks_ == 1) {
      one_stage_a_rank();
    } else if (request_.rank_of_stage == v_placement(ranks_)) {
      in_a_v();
    } else if (request_.rank_of_stage == loop_placement(ranks_, chunks_)) {
      in_a_loop();
    } else {
      throw UsageError("schedule search: stages must be placed in a loop or in a V");
    }
    if (!best_) refuse(least_seen_);
    FoundSchedule found{.schedule = std::move(best_->schedule), .makespan = best_->makespan, .optimal = false};
    if (chunks_ == 1 && request_.exact_nodes > 0) {
      ExactSchedule exact =
          exact_schedule(ranks_, request_.microbatches, request_.costs, slots_, found.makespan, request_.exact_nodes);
      if (exact.schedule) {
        found.schedule = std::move(*exact.schedule);
        found.makespan = simulate(found.schedule, {.passes = request_.costs}).makespan;
      }
      found.optimal = exact.complete;
    }
    return found;
  }

 private:
  [[noreturn]] void refuse(int64_t needed) const {
    const auto tight = std::min_element(slots_.begin(), slots_.end());
    throw UsageError(fmt::format(
        "schedule search: rank {} has memory for {} slots (microbatches of a stage); {} are the least that a schedule "
        "of {} stages a rank needs there",
        tight - slots_.begin(), *tight, needed, chunks_));
  }

  // Tries an order, under the limits and under the `least` slots that it needs (BACKWARD_WEIGHTs that are put off as
  // long as memory goes may be in the way later); true if it is the best so far.
  bool consider(const PipelineSchedule& order, int64_t least) {
    std::vector<int64_t> tight = slots_;
    for (int64_t& limit : tight) limit = std::min(limit, least);
    bool better = false;
    for (const std::vector<int64_t>& limits : {slots_, tight}) {
      std::optional<PlacedWeights> placed = place_weights(order, request_.costs, {.stages = {}, .limits = limits});
      const auto is_less = [](double a, double b) { return a < b - 1e-9 * (1 + b); };
      if (!placed || (best_ && !is_less(placed->makespan, best_->makespan))) continue;
      best_ = std::move(placed);
      better = true;
    }
    return better;
  }

  // One forward, one backward after warmup[r] forwards.
  PipelineSchedule after_warmup(const std::vector<int>& warmup) const {
    PipelineSchedule order{.microbatches = request_.microbatches, .rank_of_stage = request_.rank_of_stage, .ranks = {}};
    for (int r = 0; r < ranks_; ++r) {
      Schedule& list = order.ranks.emplace_back();
      int forwards = 0;
      const auto forward = [&] { list.push_back({.kind = ActionKind::Forward, .stage = r, .microbatch = forwards++}); };
      while (forwards < std::min(warmup[r], request_.microbatches)) forward();
      for (int m = 0; m < request_.microbatches; ++m) {
        if (forwards < request_.microbatches) forward();
        list.push_back({.kind = ActionKind::BackwardInput, .stage = r, .microbatch = m});
      }
    }
    return order;
  }

  void one_stage_a_rank() {
    // Forwards at the start in proportion to the way to the last rank, as far as memory goes: a rank never has fewer
    // than the next, which would wait for them.
    std::vector<int> best_warmup;
    for (int quarters = 0; quarters <= 16; ++quarters) {
      std::vector<int> warmup(ranks_);
      int64_t room = std::numeric_limits<int64_t>::max();
      for (int r = 0; r < ranks_; ++r) {
        room = std::min(room, slots_[r] - 1);
        warmup[r] = static_cast<int>(std::min<int64_t>(room, (quarters * (ranks_ - 1 - r) + 3) / 4));
      }
      if (consider(after_warmup(warmup), warmup[0] + 1)) best_warmup = warmup;
    }
    if (best_warmup.empty()) return;
    for (bool better = true; better;) {
      better = false;
      for (int r = 0; r < ranks_; ++r) {
        for (int change : {1, -1}) {
          std::vector<int> warmup = best_warmup;
          warmup[r] += change;
          if (warmup[r] < 0 || warmup[r] >= slots_[r] || !std::is_sorted(warmup.rbegin(), warmup.rend())) continue;
          if (!consider(after_warmup(warmup), warmup[0] + 1)) continue;
          best_warmup = warmup;
          better = true;
        }
      }
    }
  }

  void in_a_v() {
    consider(zb_v_schedule(ranks_, request_.microbatches, {}), 2 * ranks_);
    consider(dualpipe_v_schedule(ranks_, request_.microbatches), 2 * ranks_ + 1);
    for (int offset = 2; offset <= 6; ++offset) {
      const std::optional<BlockOrder> block = building_block_order(ranks_, request_.microbatches, offset);
      if (!block) continue;
      least_seen_ = least_seen_ == 0 ? block->slots : std::min<int64_t>(least_seen_, block->slots);
      consider(block->order, block->slots);
    }
  }

  void in_a_loop() {
    for (int group = 1; group <= request_.microbatches; ++group) {
      const PipelineSchedule order = interleaved_schedule(ranks_, request_.microbatches, chunks_, group);
      int64_t most = 0;
      for (const Schedule& list : order.ranks) {
        int64_t alive = 0, peak = 0;
        for (const Action& a : list) {
          alive += a.kind == ActionKind::Forward ? 1 : a.kind == ActionKind::BackwardWeight ? -1 : 0;
          peak = std::max(peak, alive);
        }
        most = std::max(most, peak);
      }
      least_seen_ = least_seen_ == 0 ? most : std::min(least_seen_, most);
      consider(order, most);
    }
  }

  const SearchRequest& request_;
  int ranks_ = 0, chunks_ = 0;
  std::vector<int64_t> slots_;  // by rank
  std::optional<PlacedWeights> best_;
  int64_t least_seen_ = 0;
};

}  // namespace

FoundSchedule search_schedule(const SearchRequest& request) {
  TESSERA_CHECK(!request.rank_of_stage.empty() && request.microbatches >= 1, "a request for stages and microbatches");
  return Search(request).run();
}

}  // namespace tessera
