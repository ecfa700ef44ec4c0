#include "tensor/context/random.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <set>
#include <vector>

#include "tensor/context/context.h"
#include "tests/support/operand.h"
#include "tests/support/same_bits.h"

namespace tessera {
namespace {

using Block = std::array<uint32_t, 4>;

TEST(Philox, MatchesThePublishedVectors) {
  // Random123's known-answer tests for philox4x32-10.
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}), (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(RandomStream, DiffersBySeedPurposeAndIndex) {
  std::set<uint64_t> seen;
  for (const uint64_t seed : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 32}) {
    for (const char* purpose : {"blocks.0.mlp", "blocks.1.mlp", ""}) {
      const RandomStream stream(seed, purpose);
      for (const uint64_t index : {uint64_t{0}, uint64_t{1}, uint64_t{2}, uint64_t{3}, uint64_t{1} << 33}) {
        seen.insert(stream.bits(index));
      }
    }
  }
  EXPECT_EQ(seen.size(), 3u * 3u * 5u);
  EXPECT_EQ(RandomStream(4, "a").bits(9), RandomStream(4, "a").bits(9));
}

// Mean and variance of n independent draws lie within five standard errors (a one in a million event otherwise, and
// the draws are fixed).
TEST(RandomStream, UniformHasItsMoments) {
  const RandomStream stream(1, "uniform");
  constexpr int kDraws = 1 << 18;
  double sum = 0, squares = 0, least = 1, most = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double u = stream.uniform(i);
    sum += u;
    squares += (u - 0.5) * (u - 0.5);
    least = std::min(least, u);
    most = std::max(most, u);
  }
  EXPECT_NEAR(sum / kDraws, 0.5, 5 * std::sqrt(1.0 / 12 / kDraws));
  EXPECT_NEAR(squares / kDraws, 1.0 / 12, 5 * std::sqrt((1.0 / 80 - 1.0 / 144) / kDraws));
  EXPECT_GE(least, 0);
  EXPECT_LT(most, 1);
}

TEST(RandomStream, NormalHasItsMomentsAndTails) {
  const RandomStream stream(1, "normal");
  constexpr int kDraws = 1 << 18;
  double sum = 0, squares = 0, fourth = 0, neighbours = 0;
  int beyond_two = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double x = stream.normal(i);
    sum += x;
    squares += x * x;
    fourth += x * x * x * x;
    neighbours += x * stream.normal(i ^ 1);  // the two of one Box-Muller pair
    beyond_two += std::abs(x) > 2;
  }
  EXPECT_NEAR(sum / kDraws, 0, 5 / std::sqrt(kDraws));
  EXPECT_NEAR(squares / kDraws, 1, 5 * std::sqrt(2.0 / kDraws));
  EXPECT_NEAR(fourth / kDraws, 3, 5 * std::sqrt(96.0 / kDraws));
  EXPECT_NEAR(neighbours / kDraws, 0, 5 * std::sqrt(2.0 / kDraws));  // each pair counts twice
  const double p = std::erfc(std::numbers::sqrt2);
  EXPECT_NEAR(beyond_two / static_cast<double>(kDraws), p, 5 * std::sqrt(p * (1 - p) / kDraws));
}

TEST(RandomStream, BelowIsUniformOverItsRange) {
  const RandomStream stream(1, "below");
  constexpr int kBound = 7, kDraws = 70000;
  std::vector<int> count(kBound);
  for (int i = 0; i < kDraws; ++i) ++count.at(stream.below(i, kBound));
  const double p = 1.0 / kBound;
  for (const int c : count) EXPECT_NEAR(c, kDraws * p, 5 * std::sqrt(kDraws * p * (1 - p)));
  EXPECT_EQ(stream.below(3, 1), 0u);
}

TEST(FillNormal, AShardDrawsItsOwnPartOfTheWhole) {
  Context context(testing::on_device({.threads = 2}));
  const RandomStream stream(42, "blocks.3.attention.qkv");
  for (const DType dtype : testing::kFloatDTypes) {
    testing::Operand whole({100, 7}, dtype), shard({33, 7}, dtype);
    fill_normal(context, whole.tensor(), stream, 0, 0.02);
    fill_normal(context, shard.tensor(), stream, 41 * 7, 0.02);
    for (int64_t i = 0; i < shard.size(); ++i) ASSERT_EQ(shard[i], whole[41 * 7 + i]);
    for (int64_t i = 0; i < whole.size(); ++i) {
      const double exact = 0.02 * stream.normal(i);
      ASSERT_LE(std::abs(whole[i] - exact), unit_roundoff(dtype) * std::abs(exact));
    }
  }
}

TEST(FillNormal, ThreadsChangeNoBit) {
  testing::expect_same_bits("fill_normal", 0, [](Context& context) {
    testing::Operand x({50001}, DType::F32);
    fill_normal(context, x.tensor(), RandomStream(1, "x"), 3, 1);
    return testing::joined({&x});
  });
}

}  // namespace
}  // namespace tessera
