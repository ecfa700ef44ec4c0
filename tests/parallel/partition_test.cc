#include "parallel/partition.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

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
  for (size_t s = 0; s < sizes.size(); ++s) {
    most = std::max(
        most, sizes[s] * cost.block + (s == 0 ? cost.embedding : 0.0) + (s + 1 == sizes.size() ? cost.head : 0.0));
  }
  return most;
}

// The least costliest stage over all ways to cut.
double exhaustive(int blocks, int stages, const ModelCost& cost) {
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
  cut(0, blocks);
  return best;
}

TEST(Partition, HeadAndEmbeddingCountByCost) {
  EXPECT_EQ(sizes(balance_stages(8, 4, {.block = 1})), (std::vector<int>{2, 2, 2, 2}));
  EXPECT_EQ(sizes(balance_stages(14, 4, {.block = 1, .head = 2})), (std::vector<int>{4, 4, 4, 2}));
  EXPECT_EQ(sizes(balance_stages(13, 4, {.embedding = 1, .block = 1, .head = 2})), (std::vector<int>{3, 4, 4, 2}));
  // The first ranks keep the most microbatches, so what is left over goes to later ones.
  EXPECT_EQ(sizes(balance_stages(5, 4, {.block = 1})), (std::vector<int>{1, 1, 1, 2}));
  EXPECT_EQ(sizes(balance_stages(3, 3, {.block = 1, .head = 9})), (std::vector<int>{1, 1, 1}));
}

TEST(Partition, NoOtherCutIsBetter) {
  const RandomStream random(7, "partition");
  for (int i = 0; i < 300; ++i) {
    const int stages = 1 + static_cast<int>(random.below(6 * i, 5));
    const int blocks = stages + static_cast<int>(random.below(6 * i + 1, 9));
    const ModelCost cost{.embedding = static_cast<double>(random.below(6 * i + 2, 4)) / 3,
                         .block = 1 + static_cast<double>(random.below(6 * i + 3, 5)) / 7,
                         .head = static_cast<double>(random.below(6 * i + 4, 40)) / 9};
    const std::vector<StagePart> parts = balance_stages(blocks, stages, cost);
    ASSERT_EQ(static_cast<int>(parts.size()), stages);
    EXPECT_NEAR(costliest(sizes(parts), cost), exhaustive(blocks, stages, cost), 1e-9);
    EXPECT_TRUE(parts.front().first() && parts.front().first_block == 0);
    EXPECT_TRUE(parts.back().last() && parts.back().last_block == blocks);
    for (int s = 1; s < stages; ++s) EXPECT_EQ(parts[s].first_block, parts[s - 1].last_block);
  }
}

TEST(Partition, MoreStagesThanBlocksAreRefused) {
  try {
    balance_stages(3, 4, {.block = 1});
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
