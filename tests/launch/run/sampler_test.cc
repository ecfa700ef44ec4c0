#include "launch/run/sampler.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

namespace tessera {
namespace {

const std::vector<double> kLogits{std::log(0.5), std::log(0.3), std::log(0.15), std::log(0.05)};

std::array<int, 4> draws(const SamplerOptions& options, int count) {
  Sampler sampler(options);
  std::array<int, 4> seen{};
  for (int i = 0; i < count; ++i) ++seen[sampler.next(kLogits, i)];
  return seen;
}

TEST(Sampler, TemperatureZeroTakesTheMostLikely) { EXPECT_EQ(draws({.temperature = 0}, 50)[0], 50); }

TEST(Sampler, DrawsByProbability) {
  constexpr int kCount = 20000;
  const auto seen = draws({.temperature = 1, .top_p = 1}, kCount);
  for (int i = 0; i < 4; ++i) {
    const double p = std::exp(kLogits[i]);
    EXPECT_NEAR(seen[i], kCount * p, 5 * std::sqrt(kCount * p * (1 - p))) << i;  // five standard deviations
  }
}

TEST(Sampler, TopPKeepsTheSmallestSetThatReachesIt) {
  const auto half = draws({.temperature = 1, .top_p = 0.45}, 2000),
             most = draws({.temperature = 1, .top_p = 0.75}, 2000);
  EXPECT_EQ(half[0], 2000);
  EXPECT_GT(most[1], 0);
  EXPECT_EQ(most[2] + most[3], 0);
}

TEST(Sampler, IsAFunctionOfSeedAndIndex) {
  Sampler a({.temperature = 1, .top_p = 1, .seed = 3}), b({.temperature = 1, .top_p = 1, .seed = 3});
  b.next(kLogits, 7);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(a.next(kLogits, i), b.next(kLogits, i));
  EXPECT_NE(draws({.temperature = 1, .top_p = 1, .seed = 3}, 200),
            draws({.temperature = 1, .top_p = 1, .seed = 4}, 200));
}

TEST(Sampler, RefusesWhatIsNoTemperatureOrProbability) {
  EXPECT_THROW(Sampler({.temperature = -1}), UsageError);
  EXPECT_THROW(Sampler({.temperature = NAN}), UsageError);
  EXPECT_THROW(Sampler({.top_p = 0}), UsageError);
  EXPECT_THROW(Sampler({.top_p = 1.5}), UsageError);
}

}  // namespace
}  // namespace tessera
