#include "tensor/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace tessera {
namespace {

TEST(DType, SizesAreThoseOfTheTypes) {
  EXPECT_EQ(size_of(DType::F64), static_cast<int64_t>(sizeof(double)));
  EXPECT_EQ(size_of(DType::F32), static_cast<int64_t>(sizeof(float)));
  EXPECT_EQ(size_of(DType::BF16), static_cast<int64_t>(sizeof(bf16)));
  EXPECT_EQ(size_of(DType::E4M3), static_cast<int64_t>(sizeof(e4m3)));
  EXPECT_EQ(size_of(DType::E5M2), static_cast<int64_t>(sizeof(e5m2)));
  EXPECT_EQ(size_of(DType::I32), static_cast<int64_t>(sizeof(int32_t)));
  EXPECT_EQ(size_of(DType::U16), static_cast<int64_t>(sizeof(uint16_t)));
  EXPECT_EQ(size_of(DType::U32), static_cast<int64_t>(sizeof(uint32_t)));
}

TEST(DType, NamesParseBack) {
  for (const DType dtype : {DType::F64, DType::F32, DType::BF16, DType::I32, DType::U16, DType::U32}) {
    EXPECT_EQ(parse_dtype(name(dtype), "run.compute_dtype"), dtype);
  }
  try {
    parse_dtype("FP16", "run.compute_dtype");
    FAIL() << "FP16 is not a dtype";
  } catch (const UsageError& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find("run.compute_dtype = FP16"), std::string::npos) << message;
    EXPECT_EQ(error.code(), ExitCode::Usage);
  }
}

TEST(DType, UnitRoundoffIsHalfTheGapAfterOne) {
  EXPECT_EQ(unit_roundoff(DType::F64), std::numeric_limits<double>::epsilon() / 2);
  EXPECT_EQ(unit_roundoff(DType::F32), std::numeric_limits<float>::epsilon() / 2);
  const bf16 one(1.0f);
  bf16 next = one;
  ++next.bits;
  EXPECT_EQ(unit_roundoff(DType::BF16), (static_cast<double>(next) - static_cast<double>(one)) / 2);
}

// The nearest bf16 of a double by search among its neighbours, ties to even.
bf16 nearest(double x) {
  bf16 below;
  below.bits = static_cast<uint16_t>(std::bit_cast<uint32_t>(static_cast<float>(x)) >> 16);
  bf16 best = below;
  for (int step = -1; step <= 1; ++step) {
    bf16 other;
    other.bits = static_cast<uint16_t>(below.bits + step);
    const double distance = std::abs(static_cast<double>(other) - x), least = std::abs(static_cast<double>(best) - x);
    if (distance < least || (distance == least && other.bits % 2 == 0)) best = other;
  }
  return best;
}

TEST(DType, FloatRoundsToTheNearestBf16) {
  for (uint32_t bits = 0x00010000; bits < 0x7f7f0000; bits += 40503) {
    for (const uint32_t sign : {0u, 0x80000000u}) {
      const float x = std::bit_cast<float>(bits | sign);
      ASSERT_EQ(bf16(x).bits, nearest(x).bits) << x;
    }
  }
}

TEST(DType, TiesGoToEven) {
  EXPECT_EQ(bf16(1.0f + 0x1p-8f).bits, bf16(1.0f).bits);
  EXPECT_EQ(bf16(1.0f + 3 * 0x1p-8f).bits, bf16(1.0f + 4 * 0x1p-8f).bits);
}

TEST(DType, DoubleRoundsToBf16Once) {
  // Just above the tie between 1 and its successor: rounding to float first would land on the tie and go down.
  const double above_tie = 1.0 + 0x1p-8 + 0x1p-40;
  EXPECT_EQ(static_cast<double>(round_to<bf16>(above_tie)), 1.0 + 0x1p-7);
  EXPECT_EQ(static_cast<double>(bf16(static_cast<float>(above_tie))), 1.0);
  EXPECT_EQ(static_cast<double>(round_to<bf16>(-above_tie)), -1.0 - 0x1p-7);
  EXPECT_EQ(static_cast<double>(round_to<bf16>(1.0 + 3 * 0x1p-8 - 0x1p-40)), 1.0 + 0x1p-7);
  for (double x = 1e-30; x < 1e30; x *= 1.0009765) ASSERT_EQ(round_to<bf16>(x).bits, nearest(x).bits) << x;
}

TEST(DType, SpecialValuesSurviveConversion) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(static_cast<float>(bf16(kInfinity)), kInfinity);
  EXPECT_EQ(static_cast<float>(bf16(std::numeric_limits<float>::max())), kInfinity);  // nearer than the largest bf16
  EXPECT_EQ(static_cast<float>(round_to<bf16>(1e300)), kInfinity);
  EXPECT_EQ(static_cast<float>(round_to<bf16>(-1e300)), -kInfinity);
  EXPECT_EQ(static_cast<float>(round_to<bf16>(1e-300)), 0.0f);
  // A NaN whose payload lies in the lower half alone must not become infinity.
  EXPECT_TRUE(std::isnan(static_cast<float>(bf16(std::bit_cast<float>(0x7f800001u)))));
  EXPECT_TRUE(std::isnan(static_cast<float>(bf16(std::bit_cast<float>(0xffffffffu)))));
  EXPECT_TRUE(std::isnan(static_cast<float>(round_to<bf16>(std::nan("")))));
}

TEST(DType, DispatchPassesTheType) {
  for (const DType dtype : {DType::F64, DType::F32, DType::BF16}) {
    EXPECT_EQ(dispatch_float(dtype, []<class T>(T) { return dtype_of<T>(); }), dtype);
    EXPECT_EQ(dispatch_float(dtype, []<class T>(T) { return dtype_of<Acc<T>>(); }), accumulation_dtype(dtype));
  }
  EXPECT_THROW(dispatch_float(DType::I32, []<class T>(T) {}), InternalError);
}

}  // namespace
}  // namespace tessera
