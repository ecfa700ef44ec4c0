#include "parallel/partition.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "tensor/check.h"

namespace tessera {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The best way to cut the first `n` blocks into the first `s` stages, for every n and s.
struct Cut {
  double value = kInfinity;
  int blocks = 0;  // of the last stage
};

// Costs of runs of blocks. Blocks of equal cost are counted and multiplied: stages with the same blocks then have the
// same cost to the last bit, wherever they lie, as sums of floating-point numbers would not.
class RunCosts {
 public:
  explicit RunCosts(const std::vector<double>& blocks) {
    for (const double cost : blocks) {
      if (std::find(costs_.begin(), costs_.end(), cost) == costs_.end()) costs_.push_back(cost);
    }
    before_.assign(costs_.size(), {0});
    for (const double cost : blocks) {
      for (size_t i = 0; i < costs_.size(); ++i) before_[i].push_back(before_[i].back() + (costs_[i] == cost ? 1 : 0));
    }
  }
  // Of blocks [begin, end).
  double of(int begin, int end) const {
    double sum = 0;
    for (size_t i = 0; i < costs_.size(); ++i) sum += (before_[i][end] - before_[i][begin]) * costs_[i];
    return sum;
  }

 private:
  std::vector<double> costs_;             // that differ
  std::vector<std::vector<int>> before_;  // by cost and block: how many blocks before it have that cost
};

// Dynamic programming over stages: combine(value of the stages before, cost of the last one).
template <class Combine>
std::vector<std::vector<Cut>> best_cuts(int stages, const ModelCost& cost, Combine combine) {
  const int blocks = static_cast<int>(cost.blocks.size());
  const RunCosts runs(cost.blocks);
  std::vector<std::vector<Cut>> best(stages + 1, std::vector<Cut>(blocks + 1));
  best[0][0].value = 0;
  for (int s = 1; s <= stages; ++s) {
    for (int n = s; n <= blocks; ++n) {
      if (s == stages && n != blocks) continue;
      // From the largest last stage down, so that among equals the later stage is the larger.
      for (int last = n - (s - 1); last >= 1; --last) {
        const double before = best[s - 1][n - last].value;
        if (before == kInfinity) continue;
        const double here = runs.of(n - last, n) + (s == 1 ? cost.embedding : 0.0) + (s == stages ? cost.head : 0.0);
        const double value = combine(before, here);
        if (value < best[s][n].value) best[s][n] = {value, last};
      }
    }
  }
  return best;
}

}  // namespace

double ModelCost::sum() const { return std::accumulate(blocks.begin(), blocks.end(), embedding + head); }

std::vector<StagePart> balance_stages(int stages, const ModelCost& cost) {
  const int blocks = static_cast<int>(cost.blocks.size());
  TESSERA_CHECK(stages >= 1, "a pipeline has at least one stage");
  if (blocks < stages) {
    throw UsageError(
        fmt::format("{} pipeline stages need as many blocks, but the model has {}; choose at most {} stages", stages,
                    blocks, blocks));
  }
  const double least =
      best_cuts(stages, cost, [](double before, double here) { return std::max(before, here); })[stages][blocks].value;
  const double limit = least * (1 + 1e-12);
  const auto squares = best_cuts(
      stages, cost, [&](double before, double here) { return here > limit ? kInfinity : before + here * here; });
  std::vector<int> blocks_of_stage(stages);
  for (int s = stages, n = blocks; s >= 1; --s) {
    blocks_of_stage[s - 1] = squares[s][n].blocks;
    n -= squares[s][n].blocks;
  }
  return stages_of(blocks, blocks_of_stage);
}

std::vector<StagePart> stages_of(int blocks, std::span<const int> blocks_of_stage) {
  const auto sizes = fmt::format("{}", fmt::join(blocks_of_stage, ", "));
  if (blocks_of_stage.empty() || *std::min_element(blocks_of_stage.begin(), blocks_of_stage.end()) < 1)
    throw UsageError(fmt::format("pipeline stages of {} blocks: each needs at least one", sizes));
  const int sum = std::accumulate(blocks_of_stage.begin(), blocks_of_stage.end(), 0);
  if (sum != blocks)
    throw UsageError(
        fmt::format("pipeline stages of {} blocks are {} in all, but the model has {}", sizes, sum, blocks));
  std::vector<StagePart> parts;
  const int stages = static_cast<int>(blocks_of_stage.size());
  for (int s = 0, begin = 0; s < stages; begin += blocks_of_stage[s++])
    parts.push_back({.stage = s, .stages = stages, .first_block = begin, .last_block = begin + blocks_of_stage[s]});
  return parts;
}

}  // namespace tessera
