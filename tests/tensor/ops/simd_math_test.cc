#include "tensor/ops/simd_math.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace tessera {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Error of `value` in units in the last place of the float nearest `exact` (subnormals share the smallest unit).
double ulps(float value, double exact) {
  const double magnitude = std::max(std::abs(exact), static_cast<double>(std::numeric_limits<float>::min()));
  const double unit = std::ldexp(1.0, std::ilogb(magnitude) - 23);
  return std::abs(value - exact) / unit;
}

TEST(SimdMath, ExpIsWithinItsBoundOverTheWholeRange) {
  // Every 251st float of either sign between the logarithms of the smallest and the largest normal number.
  double worst = 0;
  for (uint32_t sign : {0u, 0x80000000u}) {
    const float limit = sign ? 87.33654f : 88.72283f;
    for (uint32_t bits = 0; bits <= std::bit_cast<uint32_t>(limit); bits += 251) {
      const float x = std::bit_cast<float>(bits | sign);
      worst = std::max(worst, ulps(simd::exp(x), std::exp(static_cast<double>(x))));
    }
  }
  EXPECT_LE(worst, 1.01);
}

TEST(SimdMath, ExpHasTheLimitsOfIeee) {
  EXPECT_EQ(simd::exp(0.0f), 1.0f);
  EXPECT_EQ(simd::exp(-0.0f), 1.0f);
  EXPECT_EQ(simd::exp(kInfinity), kInfinity);
  EXPECT_EQ(simd::exp(-kInfinity), 0.0f);
  EXPECT_EQ(simd::exp(88.8f), kInfinity);
  EXPECT_EQ(simd::exp(std::numeric_limits<float>::max()), kInfinity);
  EXPECT_EQ(simd::exp(-104.1f), 0.0f);
  EXPECT_EQ(simd::exp(-1e30f), 0.0f);
  EXPECT_EQ(simd::exp(std::numeric_limits<float>::lowest()), 0.0f);
  EXPECT_EQ(simd::exp(-87.34f), 0.0f);  // less than the smallest normal number
  EXPECT_GE(simd::exp(-87.33654f), std::numeric_limits<float>::min());
  EXPECT_LE(simd::exp(88.72283f), std::numeric_limits<float>::max());
  EXPECT_TRUE(std::isnan(simd::exp(std::numeric_limits<float>::quiet_NaN())));
  EXPECT_TRUE(std::isnan(simd::exp(-std::numeric_limits<float>::quiet_NaN())));
  for (const uint32_t payload : {1u, 0x155u, 0x3fffffu}) {
    EXPECT_TRUE(std::isnan(simd::exp(std::bit_cast<float>(0x7fc00000u | payload)))) << payload;
  }
}

TEST(SimdMath, ExpOfALoopEqualsExpOfEachElement) {
  // Lengths that end in every remainder of a vector: the split of a range must not change a bit.
  std::vector<float> x(67), together(67);
  for (size_t i = 0; i < x.size(); ++i) x[i] = -110.0f + 3.1f * static_cast<float>(i);
  for (size_t count = 0; count <= x.size(); ++count) {
    for (size_t i = 0; i < count; ++i) together[i] = simd::exp(x[i]);
    for (size_t i = 0; i < count; ++i) {
      volatile float one = x[i];
      EXPECT_EQ(together[i], simd::exp(one)) << i << " of " << count;
    }
  }
}

TEST(SimdMath, SigmoidIsAccurateAndHasItsLimits) {
  for (float x = -87.0f; x < 87.0f; x += 0.01f) {
    // exp, sum and quotient each round: 1 + 1/2 + 1/2 units, of which exp's error of 1 unit weighs at most fully.
    EXPECT_LE(ulps(simd::sigmoid(x), 1.0 / (1.0 + std::exp(-static_cast<double>(x)))), 2.5) << x;
  }
  EXPECT_EQ(simd::sigmoid(kInfinity), 1.0f);
  EXPECT_EQ(simd::sigmoid(-kInfinity), 0.0f);
  EXPECT_EQ(simd::sigmoid(-200.0f), 0.0f);
  EXPECT_TRUE(std::isnan(simd::sigmoid(std::numeric_limits<float>::quiet_NaN())));
}

}  // namespace
}  // namespace tessera
