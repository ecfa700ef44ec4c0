#include "parallel/schedule/weights.h"

#include <algorithm>
#include <deque>
#include <limits>

#include "tensor/check.h"

namespace tessera {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
constexpr double kUnknown = -1;
// Times are sums of costs in different orders: equal ones may differ in rounding.
constexpr double kRounding = 1e-9;

struct Rank {
  Schedule order;  // FORWARD and BACKWARD_INPUT
  size_t next = 0;
  std::deque<Action> owed;  // BACKWARD_WEIGHTs
  double wake = 0;          // when it decides what to do next
  double begin = kNever, end = 0;
  int64_t bytes = 0;
  Schedule done;
};

// Ranks run in time order: whichever wakes first decides, so that all it could know at that time is known.
class Clockwork {
 public:
  Clockwork(const PipelineSchedule& orders, const ScheduleCosts& costs, const ScheduleMemory& memory, double patience)
      : orders_(orders), costs_(costs), memory_(memory), patience_(patience), ranks_(orders.ranks.size()) {
    const size_t passes = static_cast<size_t>(orders.stages()) * orders.microbatches;
    forward_end_.assign(passes, kUnknown);
    input_end_.assign(passes, kUnknown);
    for (size_t r = 0; r < ranks_.size(); ++r) {
      std::copy_if(orders.ranks[r].begin(), orders.ranks[r].end(), std::back_inserter(ranks_[r].order),
                   [](const Action& a) { return a.kind != ActionKind::BackwardWeight; });
    }
  }

  std::optional<PlacedWeights> run() {
    while (true) {
      const auto first =
          std::min_element(ranks_.begin(), ranks_.end(), [](const Rank& a, const Rank& b) { return a.wake < b.wake; });
      if (first->wake == kNever) break;
      if (!decide(*first)) return {};
    }
    PlacedWeights placed;
    placed.schedule = {.microbatches = orders_.microbatches, .rank_of_stage = orders_.rank_of_stage, .ranks = {}};
    for (Rank& rank : ranks_) {
      if (rank.next < rank.order.size()) return {};  // the order waits in a circle
      placed.makespan = std::max(placed.makespan, rank.end);
      placed.span = std::max(placed.span, rank.end - rank.begin);
      placed.schedule.ranks.push_back(std::move(rank.done));
    }
    return placed;
  }

 private:
  size_t key(int stage, int microbatch) const { return static_cast<size_t>(stage) * orders_.microbatches + microbatch; }

  int64_t slot(int stage) const { return memory_.stages.empty() ? StageBytes{}.slot : memory_.stages[stage].slot; }

  int64_t limit(const Rank& rank) const {
    return memory_.limits.empty() ? std::numeric_limits<int64_t>::max() : memory_.limits[&rank - ranks_.data()];
  }

  double cost(const Action& a) const {
    const StageCosts& stage = costs_.stage(a.stage);
    return a.kind == ActionKind::Forward         ? stage.forward
           : a.kind == ActionKind::BackwardInput ? stage.backward_input
                                                 : stage.backward_weight;
  }

  // When what the action reads is there: exactly, or at least (then `known` is false).
  double ready(const Action& a, double now, bool& known) const {
    known = true;
    const bool forward = a.kind == ActionKind::Forward;
    if (forward ? a.stage == 0 : a.stage + 1 == orders_.stages()) return now;
    const int from = forward ? a.stage - 1 : a.stage + 1;
    const double latency = orders_.rank_of_stage[from] == orders_.rank_of_stage[a.stage] ? 0 : costs_.latency;
    const double end = (forward ? forward_end_ : input_end_)[key(from, a.microbatch)];
    if (end != kUnknown) return end + latency;
    known = false;
    return now + cost({.kind = a.kind, .stage = from}) + latency;
  }

  bool decide(Rank& rank) {
    const double now = rank.wake;
    if (rank.next == rank.order.size()) {
      if (rank.owed.empty()) {
        rank.wake = kNever;
      } else {
        do_owed(rank);
      }
      return true;
    }
    const Action& action = rank.order[rank.next];
    if (action.kind == ActionKind::Forward && rank.bytes + slot(action.stage) > limit(rank)) {
      if (rank.owed.empty()) return false;
      do_owed(rank);
      return true;
    }
    bool known;
    const double start = ready(action, now, known);
    const double slack = kRounding * (1 + now);
    if (known && start <= now + slack) {
      ++rank.next;
      if (action.kind == ActionKind::Forward) {
        rank.bytes += slot(action.stage);
      } else {
        rank.owed.push_back(
            {.kind = ActionKind::BackwardWeight, .stage = action.stage, .microbatch = action.microbatch});
      }
      run(rank, action);
    } else if (!rank.owed.empty() && start - now + slack >= patience_ * cost(rank.owed.front())) {
      do_owed(rank);
    } else {
      rank.wake = known ? start : kNever;  // the one it waits for wakes it
    }
    return true;
  }

  void do_owed(Rank& rank) {
    const Action action = rank.owed.front();
    rank.owed.pop_front();
    rank.bytes -= slot(action.stage);
    run(rank, action);
  }

  void run(Rank& rank, const Action& action) {
    const double now = rank.wake, end = now + cost(action);
    rank.begin = std::min(rank.begin, now);
    rank.end = rank.wake = end;
    rank.done.push_back(action);
    if (action.kind == ActionKind::BackwardWeight) return;
    const bool forward = action.kind == ActionKind::Forward;
    (forward ? forward_end_ : input_end_)[key(action.stage, action.microbatch)] = end;
    const int to = action.stage + (forward ? 1 : -1);
    if (to < 0 || to >= orders_.stages()) return;
    Rank& reader = ranks_[orders_.rank_of_stage[to]];
    if (&reader != &rank && reader.wake == kNever && reader.next < reader.order.size()) {
      reader.wake = std::max(now, reader.end);  // decides again, now that it knows
    }
  }

  const PipelineSchedule& orders_;
  const ScheduleCosts& costs_;
  const ScheduleMemory& memory_;
  const double patience_;
  std::vector<Rank> ranks_;
  std::vector<double> forward_end_, input_end_;  // by stage and microbatch
};

}  // namespace

std::optional<PlacedWeights> place_weights(const PipelineSchedule& orders, const ScheduleCosts& costs,
                                           const ScheduleMemory& memory, double patience) {
  TESSERA_CHECK(costs.stages.empty() || static_cast<int>(costs.stages.size()) == orders.stages(),
                "costs of every stage");
  return Clockwork(orders, costs, memory, patience).run();
}

std::optional<PlacedWeights> place_weights(const PipelineSchedule& orders, const ScheduleCosts& costs,
                                           const ScheduleMemory& memory) {
  std::optional<PlacedWeights> best;
  for (double patience : {1.0, 0.5, 0.0}) {
    std::optional<PlacedWeights> placed = place_weights(orders, costs, memory, patience);
    if (!placed) continue;
    const auto better = [](double a, double b) { return a < b - kRounding * (1 + b); };
    if (!best || better(placed->makespan, best->makespan) ||
        (!better(best->makespan, placed->makespan) && better(placed->span, best->span))) {
      best = std::move(placed);
    }
  }
  return best;
}

}  // namespace tessera
