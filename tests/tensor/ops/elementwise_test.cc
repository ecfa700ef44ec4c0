#include "tensor/ops/elementwise.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/support/operand.h"
#include "tests/support/same_bits.h"
#include "tests/support/tolerance.h"

namespace tessera {
namespace {

using testing::joined;
using testing::kFloatDTypes;
using testing::Operand;

constexpr int64_t kSizes[] = {0, 1, 17, 64, 40007};

TEST(Elementwise, AddIsTheRoundedSum) {
  Context context(testing::on_device({.threads = 2}));
  for (const DType dtype : kFloatDTypes) {
    for (const int64_t size : kSizes) {
      SCOPED_TRACE(std::string(name(dtype)) + " " + std::to_string(size));
      const Operand a = Operand::random({size}, dtype, "a"), b = Operand::random({size}, dtype, "b");
      Operand y({size}, dtype), in_a = a, in_b = b;
      add(context, a.tensor(), b.tensor(), y.tensor());
      add(context, in_a.tensor(), b.tensor(), in_a.tensor());
      add(context, a.tensor(), in_b.tensor(), in_b.tensor());
      for (int64_t i = 0; i < size; ++i) {
        ASSERT_NEAR(y[i], a[i] + b[i], testing::tolerance(dtype, 1, std::abs(a[i] + b[i]))) << i;
      }
      EXPECT_EQ(y.bytes(), in_a.bytes());
      EXPECT_EQ(y.bytes(), in_b.bytes());
    }
  }
}

TEST(Elementwise, AccumulateAddsInTheAccumulationDType) {
  Context context(testing::on_device({.threads = 2}));
  for (const DType dtype : kFloatDTypes) {
    const DType sums = accumulation_dtype(dtype);
    for (const int64_t size : kSizes) {
      SCOPED_TRACE(std::string(name(dtype)) + " " + std::to_string(size));
      const Operand x = Operand::random({size}, dtype, "x");
      Operand y = Operand::random({size}, sums, "y");
      const Operand before = y;
      accumulate(context, x.tensor(), y.tensor());
      for (int64_t i = 0; i < size; ++i) {
        const double exact = before[i] + x[i];
        ASSERT_NEAR(y[i], exact, testing::tolerance(sums, sums, 1, std::abs(exact))) << i;
      }
    }
  }
  Operand x({8}, DType::BF16), y({8}, DType::BF16);
  EXPECT_THROW(accumulate(context, x.tensor(), y.tensor()), InternalError);
}

TEST(Elementwise, ScaleRoundsOnce) {
  Context context(testing::on_device({.threads = 2}));
  for (const DType dtype : kFloatDTypes) {
    for (const int64_t size : kSizes) {
      SCOPED_TRACE(std::string(name(dtype)) + " " + std::to_string(size));
      const Operand x = Operand::random({size}, dtype, "x");
      Operand y = x;
      scale(context, -0.375, y.tensor());  // a factor that every dtype holds exactly
      for (int64_t i = 0; i < size; ++i)
        ASSERT_LE(std::abs(y[i] + 0.375 * x[i]), unit_roundoff(dtype) * std::abs(0.375 * x[i])) << i;
    }
  }
}

TEST(Elementwise, CastRoundsOnceBetweenAllFloatDTypes) {
  Context context(testing::on_device({.threads = 2}));
  for (const DType from : kFloatDTypes) {
    for (const DType to : kFloatDTypes) {
      for (const int64_t size : kSizes) {
        SCOPED_TRACE(std::string(name(from)) + " to " + name(to) + " " + std::to_string(size));
        const Operand x = Operand::random({size}, from, "x");
        Operand y({size}, to);
        cast(context, x.tensor(), y.tensor());
        for (int64_t i = 0; i < size; ++i) ASSERT_LE(std::abs(y[i] - x[i]), unit_roundoff(to) * std::abs(x[i])) << i;
        if (size_of(to) >= size_of(from)) {
          for (int64_t i = 0; i < size; ++i) ASSERT_EQ(y[i], x[i]);
        }
      }
    }
  }
}

TEST(Elementwise, CastKeepsTheSpecialValues) {
  Context context(testing::on_device({}));
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  for (const DType from : kFloatDTypes) {
    for (const DType to : kFloatDTypes) {
      SCOPED_TRACE(std::string(name(from)) + " to " + name(to));
      Operand x({6}, from), y({6}, to);
      const double values[] = {kInfinity, -kInfinity, 0.0, -0.0, 3e38, std::nan("")};
      for (int i = 0; i < 6; ++i) x.set(i, values[i]);
      cast(context, x.tensor(), y.tensor());
      EXPECT_EQ(y[0], kInfinity);
      EXPECT_EQ(y[1], -kInfinity);
      EXPECT_EQ(y[2], 0.0);
      EXPECT_TRUE(std::signbit(y[3]));
      EXPECT_TRUE(std::isfinite(y[4]));
      EXPECT_TRUE(std::isnan(y[5]));
    }
  }
}

TEST(Elementwise, CastInPlaceToTheSameDTypeKeepsAndToAnotherThrows) {
  Context context(testing::on_device({}));
  Operand x = Operand::random({8}, DType::F32, "x");
  const Operand before = x;
  cast(context, x.tensor(), x.tensor());
  EXPECT_EQ(x.bytes(), before.bytes());
  const Tensor narrow(x.tensor().data(), {8}, DType::BF16);
  EXPECT_THROW(cast(context, x.tensor(), narrow), InternalError);
}

TEST(Elementwise, AddBiasAddsToEveryRow) {
  Context context(testing::on_device({.threads = 2}));
  for (const DType dtype : kFloatDTypes) {
    for (const int64_t columns : {0, 1, 33, 1000}) {
      for (const int64_t rows : {0, 1, 70}) {
        const Operand bias = Operand::random({columns}, dtype, "bias");
        Operand x = Operand::random({rows, columns}, dtype, "x");
        const Operand before = x;
        add_bias(context, bias.tensor(), x.tensor());
        for (int64_t i = 0; i < x.size(); ++i) {
          const double exact = before[i] + bias[i % columns];
          ASSERT_NEAR(x[i], exact, testing::tolerance(dtype, 1, std::abs(exact)));
        }
      }
    }
  }
}

TEST(Elementwise, ZeroClearsEveryByteAndNoOther) {
  Context context(testing::on_device({.threads = 2}));
  for (const int64_t size : kSizes) {
    Operand x = Operand::filled({size + 1}, DType::F32, 7);
    zero(context, x.tensor().rows(0, size));
    for (int64_t i = 0; i < size; ++i) ASSERT_EQ(x[i], 0);
    EXPECT_EQ(x[size], 7);
  }
}

TEST(Elementwise, ThreadsChangeNoBit) {
  for (const DType dtype : kFloatDTypes) {
    testing::expect_same_bits(name(dtype), 0, [&](Context& context) {
      const Operand a = Operand::random({300, 211}, dtype, "a"), b = Operand::random({300, 211}, dtype, "b");
      const Operand bias = Operand::random({211}, dtype, "bias");
      Operand y({300, 211}, dtype), narrow({300, 211}, DType::BF16);
      add(context, a.tensor(), b.tensor(), y.tensor());
      add_bias(context, bias.tensor(), y.tensor());
      cast(context, y.tensor(), narrow.tensor());
      Operand sum = Operand::filled({300, 211}, accumulation_dtype(dtype), 1);
      accumulate(context, y.tensor(), sum.tensor());
      return joined({&y, &narrow, &sum});
    });
  }
}

TEST(Elementwise, WrongOperandsThrow) {
  Context context(testing::on_device({}));
  Operand a({4}, DType::F32), b({5}, DType::F32), c({4}, DType::BF16);
  EXPECT_THROW(add(context, a.tensor(), b.tensor(), a.tensor()), InternalError);
  EXPECT_THROW(add(context, a.tensor(), c.tensor(), a.tensor()), InternalError);
  EXPECT_THROW(cast(context, a.tensor(), b.tensor()), InternalError);
  constexpr Device kOther = testing::kDevice == Device::Cpu ? Device::Cuda : Device::Cpu;
  EXPECT_THROW(zero(context, Tensor(nullptr, {4}, DType::F32, kOther)), InternalError);
}

}  // namespace
}  // namespace tessera
