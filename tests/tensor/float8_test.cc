#include "tensor/float8.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tensor/context/random.h"

namespace tessera {
namespace {

// What a code stands for, by the formats' definition; NaN and infinity aside.
template <class F8>
double number(int code) {
  const int mantissa_bits = std::is_same_v<F8, e4m3> ? 3 : 2, bias = std::is_same_v<F8, e4m3> ? 7 : 15;
  const int exponent = (code & 0x7f) >> mantissa_bits, mantissa = code & ((1 << mantissa_bits) - 1);
  const double size = exponent == 0 ? std::ldexp(mantissa, 1 - bias - mantissa_bits)
                                    : std::ldexp((1 << mantissa_bits) + mantissa, exponent - bias - mantissa_bits);
  return code < 0x80 ? size : -size;
}

template <class F8>
constexpr int kLargestCode = std::is_same_v<F8, e4m3> ? 0x7e : 0x7b;

template <class F8>
F8 of(int code) {
  F8 value;
  value.bits = static_cast<uint8_t>(code);
  return value;
}

template <class F8>
class Float8 : public ::testing::Test {};
using Formats = ::testing::Types<e4m3, e5m2>;
TYPED_TEST_SUITE(Float8, Formats);

TYPED_TEST(Float8, EveryNumberIsWhatItsBitsSayAndComesBack) {
  for (const int sign : {0, 0x80}) {
    for (int code = 0; code <= kLargestCode<TypeParam>; ++code) {
      const double value = number<TypeParam>(sign | code);
      EXPECT_EQ(static_cast<double>(of<TypeParam>(sign | code)), value) << code;
      EXPECT_EQ(TypeParam(static_cast<float>(value)).bits, sign | code);
    }
  }
  EXPECT_EQ(number<TypeParam>(kLargestCode<TypeParam>), (std::is_same_v<TypeParam, e4m3> ? 448 : 57344));
}

TYPED_TEST(Float8, WhatIsNoNumberIsNaNOrInfinity) {
  for (int code = kLargestCode<TypeParam> + 1; code < 0x80; ++code) {
    const float value = static_cast<float>(of<TypeParam>(code)),
                negative = static_cast<float>(of<TypeParam>(0x80 | code));
    if (std::is_same_v<TypeParam, e5m2> && code == 0x7c) {
      EXPECT_EQ(value, std::numeric_limits<float>::infinity());
      EXPECT_EQ(negative, -std::numeric_limits<float>::infinity());
    } else {
      EXPECT_TRUE(std::isnan(value) && std::isnan(negative)) << code;
    }
  }
}

// Neighbours and what lies between them: the midpoint goes to the even code, all else to the nearer one.
TYPED_TEST(Float8, RoundsToNearestEven) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (int code = 0; code < kLargestCode<TypeParam>; ++code) {
    const float below = static_cast<float>(number<TypeParam>(code)),
                above = static_cast<float>(number<TypeParam>(code + 1));
    const float middle = below + (above - below) / 2;  // exact
    const int even = code % 2 == 0 ? code : code + 1;
    EXPECT_EQ(TypeParam(middle).bits, even) << code;
    EXPECT_EQ(TypeParam(-middle).bits, 0x80 | even) << code;
    EXPECT_EQ(TypeParam(std::nextafter(middle, 0.0F)).bits, code);
    EXPECT_EQ(TypeParam(std::nextafter(middle, infinity)).bits, code + 1);
    EXPECT_EQ(TypeParam(std::nextafter(below, infinity)).bits, code);
    EXPECT_EQ(TypeParam(std::nextafter(above, 0.0F)).bits, code + 1);
  }
  EXPECT_EQ(TypeParam(std::numeric_limits<float>::denorm_min()).bits, 0);
}

TYPED_TEST(Float8, SaturatesAndKeepsNaN) {
  const float largest = static_cast<float>(number<TypeParam>(kLargestCode<TypeParam>));
  for (const float x : {std::nextafter(largest, 1e9F), largest * 1.06F, largest * 1.3F, largest * 1e5F,
                        std::numeric_limits<float>::max(), std::numeric_limits<float>::infinity()}) {
    EXPECT_EQ(TypeParam(x).bits, kLargestCode<TypeParam>) << x;
    EXPECT_EQ(TypeParam(-x).bits, 0x80 | kLargestCode<TypeParam>) << x;
  }
  EXPECT_TRUE(std::isnan(static_cast<float>(TypeParam(std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_TRUE(std::isnan(static_cast<float>(TypeParam(-std::numeric_limits<float>::signaling_NaN()))));
}

TYPED_TEST(Float8, ErrorsAreWithinTheUnitRoundoff) {
  const double u = std::is_same_v<TypeParam, e4m3> ? 0x1p-4 : 0x1p-3, smallest = number<TypeParam>(1);
  const RandomStream stream(1, "float8");
  for (int64_t i = 0; i < 20000; ++i) {
    const float x = static_cast<float>(stream.normal(i)) * std::ldexp(1.0F, static_cast<int>(i % 40) - 30);
    if (std::abs(x) > number<TypeParam>(kLargestCode<TypeParam>)) continue;
    const double error = std::abs(static_cast<double>(TypeParam(x)) - static_cast<double>(x));
    EXPECT_LE(error, std::max(u * std::abs(static_cast<double>(x)), smallest / 2)) << x;
  }
}

}  // namespace
}  // namespace tessera
