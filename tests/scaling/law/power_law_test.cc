#include "scaling/law/power_law.h"

#include <gtest/gtest.h>

#include <cmath>

#include "scaling/fit/quantile.h"
#include "tensor/check.h"
#include "tensor/context/random.h"

namespace tessera {
namespace {

struct Observations {
  std::vector<std::vector<double>> x;
  std::vector<double> y;
};

Observations observe(double noise, uint64_t seed) {
  Observations result;
  const RandomStream random(seed, "power law");
  for (double n : {1e7, 1e8, 1e9})
    for (double d : {1e9, 4e9, 3e10}) {
      result.x.push_back({n, d});
      result.y.push_back(0.7 * std::pow(n, -0.23) * std::pow(d, -0.32) *
                         std::exp(noise * random.normal(result.y.size())));
    }
  return result;
}

TEST(PowerLaw, RecoversCleanObservations) {
  const Observations seen = observe(0, 1);
  const PowerLaw law({"N", "D"}, seen.x, seen.y);
  EXPECT_NEAR(law.factor(0.9).value, 0.7, 1e-10);
  EXPECT_NEAR(law.exponent(0, 0.9).value, -0.23, 1e-12);
  EXPECT_NEAR(law.exponent(1, 0.9).value, -0.32, 1e-12);
  EXPECT_NEAR(law.mean_at({1e11, 2e12}, 0.9).value / (0.7 * std::pow(1e11, -0.23) * std::pow(2e12, -0.32)), 1, 1e-10);
}

TEST(PowerLaw, IntervalsHoldTheTruthAsOftenAsTheySay) {
  // Exact under normal noise, so the count is binomial; the bounds leave out less than 1e-4 on either side.
  constexpr int kSets = 400;
  int exponent = 0, factor = 0, mean = 0;
  for (int set = 0; set < kSets; ++set) {
    const Observations seen = observe(0.1, 100 + static_cast<uint64_t>(set));
    const PowerLaw law({"N", "D"}, seen.x, seen.y);
    const auto holds = [](const Estimate& interval, double truth) {
      return interval.low <= truth && truth <= interval.high;
    };
    exponent += holds(law.exponent(1, 0.9), -0.32);
    factor += holds(law.factor(0.9), 0.7);
    mean += holds(law.mean_at({1e11, 2e12}, 0.9), 0.7 * std::pow(1e11, -0.23) * std::pow(2e12, -0.32));
  }
  for (int count : {exponent, factor, mean}) {
    EXPECT_GT(binomial_below(count, kSets, 0.9), 1e-4) << count;
    EXPECT_LT(binomial_below(count - 1, kSets, 0.9), 1 - 1e-4) << count;
  }
}

TEST(PowerLaw, IntervalsWidenWithDistance) {
  const Observations seen = observe(0.1, 7);
  const PowerLaw law({"N", "D"}, seen.x, seen.y);
  double before = 0;
  for (double scale : {1.0, 10.0, 100.0, 1000.0}) {
    const Estimate at = law.mean_at({1e8 * scale, 5e9 * scale}, 0.9);
    const double width = std::log(at.high / at.low);
    EXPECT_GT(width, before);
    before = width;
    const Estimate one = law.observation_at({1e8 * scale, 5e9 * scale}, 0.9);
    EXPECT_GT(std::log(one.high / one.low), width);
  }
}

TEST(PowerLaw, CollinearVariablesAreNamed) {
  try {
    PowerLaw({"N", "D"}, {{1e7, 2e8}, {1e8, 2e9}, {1e9, 2e10}, {1e10, 2e11}}, {1, 2, 3, 4});
    FAIL();
  } catch (const DataError& error) {
    EXPECT_NE(std::string(error.what()).find("N and D do not vary independently"), std::string::npos);
  }
  EXPECT_THROW(PowerLaw({"N", "D"}, {{1, 2}, {3, 4}}, {1, 2}), DataError);
  EXPECT_THROW(PowerLaw({"N"}, {{1}, {-2}, {3}}, {1, 2, 3}), DataError);
  // As many observations as constants: a law, but no interval.
  EXPECT_TRUE(std::isinf(PowerLaw({"N"}, {{1}, {2}}, {1, 2}).exponent(0, 0.9).high));
}

}  // namespace
}  // namespace tessera
