#include "scaling/planning/schedule_exact.h"

#include <algorithm>

#include "tensor/check.h"

namespace tessera {
namespace {

constexpr double kRounding = 1e-9;

// A rank's progress: microbatches done in each kind.
struct Rank {
  int done[3] = {0, 0, 0};  // FORWARD, BACKWARD_INPUT, BACKWARD_WEIGHT
  double free = 0;
};

class Tree {
 public:
  Tree(int ranks, int microbatches, const ScheduleCosts& costs, const std::vector<int64_t>& limits, double bound,
       int64_t nodes)
      : microbatches_(microbatches), costs_(costs), limits_(limits), best_(bound), nodes_(nodes), ranks_(ranks) {
    ends_[0].assign(static_cast<size_t>(ranks) * microbatches, 0);
    ends_[1] = ends_[0];
    lists_.resize(ranks);
  }

  ExactSchedule search() {
    descend();
    return {.schedule = std::move(found_), .complete = nodes_ > 0};
  }

 private:
  struct Choice {
    int rank, kind;
    double start, end;
  };

  double cost(int rank, int kind) const {
    const StageCosts& c = costs_.stage(rank);
    return kind == 0 ? c.forward : kind == 1 ? c.backward_input : c.backward_weight;
  }
  double& end_of(int kind, int rank, int m) { return ends_[kind][static_cast<size_t>(rank) * microbatches_ + m]; }

  // When the rank's next action of the kind could begin, if what it needs has been decided.
  std::optional<Choice> choice(int r, int kind) {
    Rank& rank = ranks_[r];
    const int m = rank.done[kind];
    if (m == microbatches_) return {};
    double start = rank.free;
    const int last = static_cast<int>(ranks_.size()) - 1;
    if (kind == 0) {
      if (m - rank.done[2] >= limits_[r]) return {};
      if (r > 0) {
        if (ranks_[r - 1].done[0] <= m) return {};
        start = std::max(start, end_of(0, r - 1, m) + costs_.latency);
      }
    } else {
      if (rank.done[kind - 1] <= m) return {};
      if (kind == 1 && r < last) {
        if (ranks_[r + 1].done[1] <= m) return {};
        start = std::max(start, end_of(1, r + 1, m) + costs_.latency);
      }
    }
    return Choice{r, kind, start, start + cost(r, kind)};
  }

  // No schedule that goes on from here takes less.
  double least() {
    double least = 0;
    const int last = static_cast<int>(ranks_.size()) - 1;
    double up = 0;  // the last gradient's way from this rank to rank 0
    for (int r = 0; r <= last; ++r) {
      double work = ranks_[r].free;
      for (int kind = 0; kind < 3; ++kind) work += (microbatches_ - ranks_[r].done[kind]) * cost(r, kind);
      least = std::max(least, work);
      // All FORWARDs and BACKWARD_INPUTs of this rank, then the way up and the last BACKWARD_WEIGHT there.
      if (ranks_[r].done[1] < microbatches_) {
        const double passes = ranks_[r].free + (microbatches_ - ranks_[r].done[0]) * cost(r, 0) +
                              (microbatches_ - ranks_[r].done[1]) * cost(r, 1);
        least = std::max(least, passes + up + cost(0, 2));
      }
      up += cost(r, 1) + costs_.latency;
    }
    return least;
  }

  void descend() {
    if (nodes_ == 0 || least() >= best_ - kRounding * (1 + best_)) return;
    --nodes_;
    std::optional<Choice> first;
    for (int r = 0; r < static_cast<int>(ranks_.size()); ++r) {
      for (int kind = 0; kind < 3; ++kind) {
        const std::optional<Choice> each = choice(r, kind);
        if (each && (!first || each->end < first->end)) first = each;
      }
    }
    if (!first) return finish();
    // On the rank of the action that ends first, something begins before that end.
    for (int kind : {1, 0, 2}) {  // the most promising first
      const std::optional<Choice> each = choice(first->rank, kind);
      if (each && (each->start < first->end || each->kind == first->kind)) follow(*each);
    }
  }

  void follow(const Choice& chosen) {
    Rank& rank = ranks_[chosen.rank];
    const double free = rank.free;
    const int m = rank.done[chosen.kind]++;
    rank.free = chosen.end;
    if (chosen.kind < 2) end_of(chosen.kind, chosen.rank, m) = chosen.end;
    lists_[chosen.rank].push_back(
        {.kind = static_cast<ActionKind>(chosen.kind), .stage = chosen.rank, .microbatch = m});
    descend();
    lists_[chosen.rank].pop_back();
    rank.free = free;
    --rank.done[chosen.kind];
  }

  void finish() {
    double makespan = 0;
    for (const Rank& rank : ranks_) {
      if (rank.done[2] < microbatches_) return;  // no memory to go on
      makespan = std::max(makespan, rank.free);
    }
    if (makespan >= best_) return;
    best_ = makespan;
    found_ = PipelineSchedule{.microbatches = microbatches_,
                              .rank_of_stage = loop_placement(static_cast<int>(ranks_.size()), 1),
                              .ranks = lists_};
  }

  const int microbatches_;
  const ScheduleCosts& costs_;
  const std::vector<int64_t>& limits_;
  double best_;
  int64_t nodes_;
  std::vector<Rank> ranks_;
  std::vector<double> ends_[2];
  std::vector<Schedule> lists_;
  std::optional<PipelineSchedule> found_;
};

}  // namespace

ExactSchedule exact_schedule(int ranks, int microbatches, const ScheduleCosts& costs,
                             const std::vector<int64_t>& limits, double bound, int64_t nodes) {
  TESSERA_CHECK_EQ(limits.size(), static_cast<size_t>(ranks), "a limit for every rank");
  TESSERA_CHECK(*std::min_element(limits.begin(), limits.end()) >= 1, "no slot");
  return Tree(ranks, microbatches, costs, limits, bound, nodes).search();
}

}  // namespace tessera
