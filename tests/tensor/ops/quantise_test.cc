#include "tensor/ops/quantise.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/support/operand.h"

namespace tessera {
namespace {

using testing::Operand;

constexpr DType kInputs[] = {DType::BF16, DType::F32};
constexpr DType kFormats[] = {DType::E4M3, DType::E5M2};
// Less than a tile of the GPU's kernel, whole ones, and some that end within one.
constexpr int64_t kSizes[][2] = {{16, 16}, {128, 64}, {16, 208}, {272, 16}, {144, 80}, {384, 320}};

int code(const Operand& x, int64_t i) { return static_cast<int>(x.bytes()[i]); }

double decode(DType format, int code) {
  return format == DType::E4M3 ? e4m3::Format::decode(static_cast<uint8_t>(code))
                               : e5m2::Format::decode(static_cast<uint8_t>(code));
}

struct Result {
  Result(const Operand& x, int64_t rows, int64_t columns, DType format)
      : values({rows, columns}, format), transposed({columns, rows}, format), scale({1}, DType::F32) {
    Context context(testing::on_device({.threads = 2}));
    quantise(context, x.tensor(), values.tensor(), transposed.tensor(), scale.tensor());
    context.synchronize();
  }
  Operand values, transposed, scale;
};

TEST(Quantise, IsNearWithinWhatTheFormatsAllow) {
  for (const DType input : kInputs) {
    for (const DType format : kFormats) {
      const double largest = format == DType::E4M3 ? 448 : 57344,
                   half_smallest = format == DType::E4M3 ? 0x1p-10 : 0x1p-17;
      for (const auto& [rows, columns] : kSizes) {
        const Operand x = Operand::random({rows, columns}, input, "x", 3e-3);
        const Result q(x, rows, columns, format);
        double amax = 0;
        for (int64_t i = 0; i < x.size(); ++i) amax = std::max(amax, std::abs(x[i]));
        const double scale = q.scale[0];
        EXPECT_NEAR(scale, amax / largest, 4 * 0x1p-24 * amax / largest);
        bool reached = false;  // the largest magnitude is the format's largest number
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t c = 0; c < columns; ++c) {
            const int64_t i = r * columns + c;
            const double size = std::abs(x[i]), value = decode(format, code(q.values, i));
            ASSERT_NEAR(scale * value, x[i], unit_roundoff(format) * size + half_smallest * scale + 0x1p-22 * size)
                << name(input) << " to " << name(format) << " at " << r << ", " << c;
            ASSERT_EQ(code(q.transposed, c * rows + r), code(q.values, i)) << r << ", " << c;
            reached |= std::abs(value) == largest;
          }
        }
        EXPECT_TRUE(reached);
      }
    }
  }
}

// Nearest even of the factor's product, which is made in F32: the bits, not only nearness.
TEST(Quantise, IsTheRoundedProductWithTheFactor) {
  for (const DType format : kFormats) {
    const Operand x = Operand::random({48, 96}, DType::BF16, "x");
    const Result q(x, 48, 96, format);
    double amax = 0;
    for (int64_t i = 0; i < x.size(); ++i) amax = std::max(amax, std::abs(x[i]));
    const float factor = float8_factor(static_cast<float>(amax), format == DType::E4M3 ? 448.0F : 57344.0F);
    EXPECT_EQ(q.scale[0], static_cast<double>(1 / factor));
    for (int64_t i = 0; i < x.size(); ++i) {
      const float product = factor * static_cast<float>(x[i]);
      ASSERT_EQ(code(q.values, i), format == DType::E4M3 ? e4m3(product).bits : e5m2(product).bits) << i;
    }
  }
}

TEST(Quantise, WritesOnlyWhatIsAskedFor) {
  Context context(testing::on_device({}));
  const Operand x = Operand::random({32, 48}, DType::BF16, "x");
  const Result both(x, 32, 48, DType::E4M3);
  Operand values({32, 48}, DType::E4M3), transposed({48, 32}, DType::E4M3), scale({1}, DType::F32);
  quantise(context, x.tensor(), values.tensor(), {}, scale.tensor());
  context.synchronize();
  EXPECT_EQ(values.bytes(), both.values.bytes());
  quantise(context, x.tensor(), {}, transposed.tensor(), scale.tensor());
  context.synchronize();
  EXPECT_EQ(transposed.bytes(), both.transposed.bytes());
  EXPECT_EQ(scale[0], both.scale[0]);
}

TEST(Quantise, ZerosStayZeros) {
  const Result q(Operand::filled({16, 32}, DType::BF16, 0), 16, 32, DType::E4M3);
  EXPECT_EQ(q.scale[0], 1);
  for (int64_t i = 0; i < q.values.size(); ++i) EXPECT_EQ(code(q.values, i), 0);
}

// 448 / 1e-40 is more than a float holds.
TEST(Quantise, TinyNumbersKeepAFiniteScale) {
  const Result q(Operand::filled({16, 16}, DType::F32, 0x1p-133), 16, 16, DType::E4M3);
  EXPECT_EQ(q.scale[0], 0x1p-126);
  for (int64_t i = 0; i < q.values.size(); ++i) EXPECT_EQ(decode(DType::E4M3, code(q.values, i)), 0x1p-7);
}

TEST(Quantise, HugeNumbersDoNotOverflow) {
  const double huge = std::numeric_limits<float>::max();
  const Result q(Operand::filled({16, 16}, DType::F32, -huge), 16, 16, DType::E5M2);
  EXPECT_NEAR(q.scale[0] * decode(DType::E5M2, code(q.values, 0)), -huge, 0x1p-22 * huge);
}

TEST(Quantise, WhatIsNotFiniteMakesAllNaN) {
  for (const DType format : kFormats) {
    for (const double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(),
                             -std::numeric_limits<double>::infinity()}) {
      Operand x = Operand::random({144, 80}, DType::BF16, "x");
      x.set(143 * 80 + 77, bad);
      const Result q(x, 144, 80, format);
      EXPECT_TRUE(std::isnan(q.scale[0]));
      for (const int64_t i : {int64_t{0}, q.values.size() / 2, q.values.size() - 1})
        EXPECT_TRUE(std::isnan(decode(format, code(q.values, i)))) << bad;
    }
  }
}

TEST(Quantise, RefusesOperandsThatDoNotFit) {
  Context context(testing::on_device({}));
  const Operand x = Operand::random({16, 24}, DType::BF16, "x"), wide = Operand::random({16, 16}, DType::F64, "x");
  Operand uneven({16, 24}, DType::E4M3), values({16, 16}, DType::E4M3), plain({16, 16}, DType::BF16),
      scale({1}, DType::F32);
  EXPECT_THROW(quantise(context, x.tensor(), uneven.tensor(), {}, scale.tensor()), InternalError);
  EXPECT_THROW(quantise(context, wide.tensor(), values.tensor(), {}, scale.tensor()), InternalError);
  const Operand fits = Operand::random({16, 16}, DType::BF16, "x");
  EXPECT_THROW(quantise(context, fits.tensor(), plain.tensor(), {}, scale.tensor()), InternalError);
  EXPECT_THROW(quantise(context, fits.tensor(), {}, {}, scale.tensor()), InternalError);
}

}  // namespace
}  // namespace tessera
