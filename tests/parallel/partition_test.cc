#include "parallel/partition.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <vector>

#include "tensor/check.h"
#include "tensor/context/random.h"

namespace tessera {
namespace {

std::vector<int> sizes(const std::vector<StagePart>& parts) {
  std::vector<int> sizes;
  for (const StagePart& part : parts) sizes.push_back(part.blocks());
  return sizes;
}

double costliest(const std::vector<int>& sizes, const ModelCost& cost) {
  double most = 0;
  auto block = cost.blocks.begin();
  for (size_t s = 0; s < sizes.size(); ++s) {
    const double ends = (s == 0 ? cost.embedding : 0.0) + (s + 1 == sizes.size() ? cost.head : 0.0);
    most = std::max(most, std::accumulate(block, block + sizes[s], ends));
    block += sizes[s];
  }
  return most;
}

// Blocks of one cost.
std::vector<double> blocks(int count, double cost = 1) { return std::vector<double>(count, cost); }

// The least costliest stage over all ways to cut.
double exhaustive(int stages, const ModelCost& cost) {
  double best = 1e300;
  std::vector<int> sizes(stages, 1);
  const std::function<void(int, int)> cut = [&](int stage, int left) {
    if (stage == stages - 1) {
      sizes[stage] = left;
      best = std::min(best, costliest(sizes, cost));
      return;
    }
    for (int n = 1; n <= left - (stages - 1 - stage); ++n) {
      sizes[stage] = n;
      cut(stage + 1, left - n);
    }
  };
  cut(0, static_cast<int>(cost.blocks.size()));
  return best;
}

TEST(Partition, HeadAndEmbeddingCountByCost) {
  EXPECT_EQ(sizes(balance_stages(4, {.blocks = blocks(8)})), (std::vector<int>{2, 2, 2, 2}));
  EXPECT_EQ(sizes(balance_stages(4, {.blocks = blocks(14), .head = 2})), (std::vector<int>{4, 4, 4, 2}));
  EXPECT_EQ(sizes(balance_stages(4, {.embedding = 1, .blocks = blocks(13), .head = 2})),
            (std::vector<int>{3, 4, 4, 2}));
  // The first ranks keep the most microbatches, so what is left over goes to later ones.
  EXPECT_EQ(sizes(balance_stages(4, {.blocks = blocks(5)})), (std::vector<int>{1, 1, 1, 2}));
  EXPECT_EQ(sizes(balance_stages(3, {.blocks = blocks(3), .head = 9})), (std::vector<int>{1, 1, 1}));
}

TEST(Partition, EachBlockCountsByItsOwnCost) {
  EXPECT_EQ(sizes(balance_stages(2, {.blocks = {3, 1, 1, 1}})), (std::vector<int>{1, 3}));
  EXPECT_EQ(sizes(balance_stages(2, {.blocks = {1, 1, 1, 3}})), (std::vector<int>{3, 1}));
  EXPECT_EQ(sizes(balance_stages(3, {.blocks = {4, 1, 4, 1, 4, 1}})), (std::vector<int>{2, 2, 2}));
}

TEST(Partition, NoOtherCutIsBetter) {
  const RandomStream random(7, "partition");
  for (int i = 0; i < 300; ++i) {
    const int stages = 1 + static_cast<int>(random.below(6 * i, 5));
    const int count = stages + static_cast<int>(random.below(6 * i + 1, 9));
    std::vector<double> costs = blocks(count, 1 + static_cast<double>(random.below(6 * i + 3, 5)) / 7);
    if (i % 2 == 1) {  // of two kinds
      for (int block = 0; block < count; ++block)
        costs[block] *= 1 + static_cast<double>(random.below(9000 + block, 2));
    }
    const ModelCost cost{.embedding = static_cast<double>(random.below(6 * i + 2, 4)) / 3,
                         .blocks = costs,
                         .head = static_cast<double>(random.below(6 * i + 4, 40)) / 9};
    const std::vector<StagePart> parts = balance_stages(stages, cost);
    ASSERT_EQ(static_cast<int>(parts.size()), stages);
    EXPECT_NEAR(costliest(sizes(parts), cost), exhaustive(stages, cost), 1e-9);
    EXPECT_TRUE(parts.front().first() && parts.front().first_block == 0);
    EXPECT_TRUE(parts.back().last() && parts.back().last_block == count);
    for (int s = 1; s < stages; ++s) EXPECT_EQ(parts[s].first_block, parts[s - 1].last_block);
  }
}

TEST(Partition, MoreStagesThanBlocksAreRefused) {
  try {
    balance_stages(4, {.blocks = blocks(3)});
    FAIL();
  } catch (const UsageError& error) {
    EXPECT_STREQ(error.what(), "4 pipeline stages need as many blocks, but the model has 3; choose at most 3 stages");
  }
}

TEST(Partition, ByHand) {
  const int given[] = {3, 1, 2};
  const std::vector<StagePart> parts = stages_of(6, given);
  EXPECT_EQ(sizes(parts), (std::vector<int>{3, 1, 2}));
  EXPECT_EQ(parts[1].first_block, 3);
  EXPECT_EQ(parts[2].stages, 3);
  EXPECT_THROW(stages_of(7, given), UsageError);
  const int empty[] = {6, 0};
  EXPECT_THROW(stages_of(6, empty), UsageError);
}

}  // namespace
}  // namespace tessera
