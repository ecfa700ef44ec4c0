#include "data/order/mixture.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <numeric>
#include <random>

#include "tensor/check.h"

namespace tessera {
namespace {

std::vector<uint64_t> random_weights(std::mt19937_64& random) {
  std::vector<uint64_t> weights(1 + random() % 9);
  for (uint64_t& weight : weights) weight = random() % 4 == 0 ? 0 : random() >> (2 + 5 + random() % 50);
  weights[random() % weights.size()] = 1 + random() % 1000;
  return weights;
}

TEST(Mixture, ExactlyOneSourceAdvancesAtEachSample) {
  std::mt19937_64 random(1);
  for (int trial = 0; trial < 500; ++trial) {
    const auto weights = random_weights(random);
    const Mixture mixture(weights);
    const int64_t start = trial % 2 == 0 ? 0 : static_cast<int64_t>(random() >> 3);
    std::vector<int64_t> counts;
    for (int s = 0; s < mixture.sources(); ++s) counts.push_back(mixture.count(s, start));
    ASSERT_EQ(std::accumulate(counts.begin(), counts.end(), int64_t{0}), start);
    for (int64_t g = start; g < start + 100; ++g) {
      const Mixture::Place place = mixture.locate(g);
      ASSERT_GT(weights[place.source], 0u);
      ASSERT_EQ(place.index, counts[place.source]) << "the next one of its source";
      ++counts[place.source];
      for (int s = 0; s < mixture.sources(); ++s) ASSERT_EQ(mixture.count(s, g + 1), counts[s]);
    }
  }
}

TEST(Mixture, SharesFollowTheWeightsAtEveryPoint) {
  std::mt19937_64 random(2);
  for (int trial = 0; trial < 500; ++trial) {
    const auto weights = random_weights(random);
    const Mixture mixture(weights);
    const auto whole = static_cast<long double>(std::accumulate(weights.begin(), weights.end(), uint64_t{0}));
    const int levels = std::bit_width(weights.size() - 1);
    for (int i = 0; i < 50; ++i) {
      const auto g = static_cast<int64_t>(random() % 1'000'000'000'000);
      for (int s = 0; s < mixture.sources(); ++s) {
        const long double expected = static_cast<long double>(g) * static_cast<long double>(weights[s]) / whole;
        // One floor a level, less than 1 each; the reference's own rounding is below 1e-6 at this size.
        ASSERT_LE(std::abs(static_cast<long double>(mixture.count(s, g)) - expected), levels + 1e-6L);
      }
    }
  }
}

TEST(Mixture, KnownSequence) {
  const Mixture mixture({1, 3});
  std::vector<int> sources;
  for (int64_t g = 0; g < 8; ++g) sources.push_back(mixture.locate(g).source);
  EXPECT_EQ(sources, (std::vector<int>{1, 1, 1, 0, 1, 1, 1, 0}));
  EXPECT_EQ(Mixture({5}).locate(123).index, 123);
}

TEST(Mixture, FixedPointWeightsKeepRatiosAndNeverLoseASource) {
  const auto weights = fixed_point_weights({1, 3, 0, 1e-15});
  EXPECT_EQ(weights[0], uint64_t{1} << 30);
  EXPECT_EQ(weights[1], uint64_t{3} << 30);
  EXPECT_EQ(weights[2], 0u);
  EXPECT_EQ(weights[3], 1u);
  EXPECT_EQ(fixed_point_weights({0.25, 0.75}), fixed_point_weights({1, 3}));
  EXPECT_THROW(fixed_point_weights({1, -1}), UsageError);
  EXPECT_THROW(fixed_point_weights({1, NAN}), UsageError);
  EXPECT_THROW(fixed_point_weights({1, INFINITY}), UsageError);
  EXPECT_THROW(fixed_point_weights({0, 0}), UsageError);
  EXPECT_THROW(fixed_point_weights({1e308, 1e308}), UsageError);
}

}  // namespace
}  // namespace tessera
