#include "tensor/ops/activation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numbers>

#include "tests/support/central_difference.h"
#include "tests/support/operand.h"
#include "tests/support/same_bits.h"
#include "tests/support/tolerance.h"

namespace tessera {
namespace {

using testing::kFloatDTypes;
using testing::Operand;

constexpr int64_t kTokens[] = {0, 1, 3, 41};
constexpr int64_t kWidths[] = {1, 15, 16, 301};

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// 2u of GELU's tanh form, and its derivative.
double gelu_argument(double x) { return 2 * std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x); }
double gelu_slope(double x) { return 2 * std::sqrt(2 / std::numbers::pi) * (1 + 3 * 0.044715 * x * x); }

// A sigmoid is off by its exponential (about 2 roundings), sum and quotient, and, relatively, by what its argument is
// off absolutely.
constexpr double kSigmoidRoundings = 4;

TEST(Activation, SwigluMatchesTheFormula) {
  Context context(testing::on_device({.threads = 2}));
  for (const DType dtype : kFloatDTypes) {
    for (const int64_t tokens : kTokens) {
      for (const int64_t ffn : kWidths) {
        const Operand gate_up = Operand::random({tokens, ffn, 2}, dtype, "gate_up", 3);
        const Operand dy = Operand::random({tokens, ffn}, dtype, "dy");
        Operand y({tokens, ffn}, dtype), dgate_up({tokens, ffn, 2}, dtype);
        swiglu(context, gate_up.tensor(), y.tensor());
        swiglu_backward(context, dy.tensor(), gate_up.tensor(), dgate_up.tensor());
        for (int64_t i = 0; i < y.size(); ++i) {
          const double gate = gate_up[2 * i], up = gate_up[2 * i + 1], s = sigmoid(gate);
          const double exact = gate * s * up;
          ASSERT_NEAR(y[i], exact, testing::tolerance(dtype, kSigmoidRoundings + 2, std::abs(exact))) << gate;
          // 1 - s cancels, so its error is one of the size of s times 1.
          const double dgate = dy[i] * up * (s + gate * s * (1 - s));
          const double magnitude = std::abs(dy[i] * up) * (s + std::abs(gate) * s);
          ASSERT_NEAR(dgate_up[2 * i], dgate, testing::tolerance(dtype, 2 * kSigmoidRoundings + 6, magnitude)) << gate;
          const double dup = dy[i] * gate * s;
          ASSERT_NEAR(dgate_up[2 * i + 1], dup, testing::tolerance(dtype, kSigmoidRoundings + 2, std::abs(dup)));
        }
      }
    }
  }
}

TEST(Activation, GeluMatchesTheFormula) {
  Context context(testing::on_device({.threads = 2}));
  for (const DType dtype : kFloatDTypes) {
    for (const int64_t tokens : kTokens) {
      for (const int64_t width : kWidths) {
        const Operand x = Operand::random({tokens, width}, dtype, "x", 2),
                      dy = Operand::random({tokens, width}, dtype, "dy");
        Operand y({tokens, width}, dtype), dx({tokens, width}, dtype);
        gelu(context, x.tensor(), y.tensor());
        gelu_backward(context, dy.tensor(), x.tensor(), dx.tensor());
        for (int64_t i = 0; i < y.size(); ++i) {
          const double argument = gelu_argument(x[i]), s = sigmoid(argument);
          const double exact = 0.5 * x[i] * (1 + std::tanh(argument / 2));
          const double roundings = kSigmoidRoundings + 7 * std::abs(argument) + 1;
          // The reference 1 + tanh cancels: its error is one of the size of x in double.
          const double reference = 8 * unit_roundoff(DType::F64) * std::abs(x[i]);
          ASSERT_NEAR(y[i], exact, testing::tolerance(dtype, roundings, std::abs(exact)) + reference) << x[i];
          const double slope = s + x[i] * s * (1 - s) * gelu_slope(x[i]);
          const double magnitude = std::abs(dy[i]) * (s + std::abs(x[i]) * s * gelu_slope(x[i]));
          ASSERT_NEAR(dx[i], dy[i] * slope, testing::tolerance(dtype, 2 * roundings + 10, magnitude)) << x[i];
        }
      }
    }
  }
}

TEST(Activation, GradientsMatchCentralDifferences) {
  Context context(testing::on_device({}));
  Operand gate_up = Operand::random({3, 5, 2}, DType::F64, "gate_up"), x = Operand::random({3, 5}, DType::F64, "x");
  const Operand dy = Operand::random({3, 5}, DType::F64, "dy");
  Operand y({3, 5}, DType::F64), dgate_up({3, 5, 2}, DType::F64), dx({3, 5}, DType::F64);
  swiglu_backward(context, dy.tensor(), gate_up.tensor(), dgate_up.tensor());
  testing::expect_gradient(
      gate_up, dgate_up,
      [&] {
        swiglu(context, gate_up.tensor(), y.tensor());
        return testing::dot(y, dy);
      },
      "swiglu");
  gelu_backward(context, dy.tensor(), x.tensor(), dx.tensor());
  testing::expect_gradient(
      x, dx,
      [&] {
        gelu(context, x.tensor(), y.tensor());
        return testing::dot(y, dy);
      },
      "gelu");
}

TEST(Activation, BackwardMayWriteOverItsInputs) {
  Context context(testing::on_device({.threads = 2}));
  for (const DType dtype : kFloatDTypes) {
    Operand gate_up = Operand::random({9, 37, 2}, dtype, "gate_up"), dy = Operand::random({9, 37}, dtype, "dy");
    Operand x = Operand::random({9, 37}, dtype, "x"), dgate_up({9, 37, 2}, dtype), dx({9, 37}, dtype);
    swiglu_backward(context, dy.tensor(), gate_up.tensor(), dgate_up.tensor());
    swiglu_backward(context, dy.tensor(), gate_up.tensor(), gate_up.tensor());
    EXPECT_EQ(gate_up.bytes(), dgate_up.bytes());
    Operand over_x = x, over_dy = dy;
    gelu_backward(context, dy.tensor(), x.tensor(), dx.tensor());
    gelu_backward(context, dy.tensor(), over_x.tensor(), over_x.tensor());
    gelu_backward(context, over_dy.tensor(), x.tensor(), over_dy.tensor());
    EXPECT_EQ(over_x.bytes(), dx.bytes());
    EXPECT_EQ(over_dy.bytes(), dx.bytes());
  }
}

TEST(Activation, SaturatesWithoutNaNAndLetsNaNThrough) {
  Context context(testing::on_device({}));
  for (const DType dtype : kFloatDTypes) {
    SCOPED_TRACE(name(dtype));
    const double large[] = {-3e38, -1e20, -1e4, -200, 200, 1e4, 1e20, 3e38};
    Operand x({9}, dtype), y({9}, dtype), dx({9}, dtype);
    const Operand one = Operand::filled({9}, dtype, 1);
    for (int i = 0; i < 8; ++i) x.set(i, large[i]);
    x.set(8, std::nan(""));
    gelu(context, x.tensor(), y.tensor());
    gelu_backward(context, one.tensor(), x.tensor(), dx.tensor());
    Operand gate_up({9, 1, 2}, dtype), product({9, 1}, dtype), dgate_up({9, 1, 2}, dtype);
    for (int i = 0; i < 9; ++i) {
      gate_up.set(2 * i, x[i]);
      gate_up.set(2 * i + 1, 1);
    }
    swiglu(context, gate_up.tensor(), product.tensor());
    swiglu_backward(context, one.tensor().reshape({9, 1}), gate_up.tensor(), dgate_up.tensor());
    for (int i = 0; i < 8; ++i) {
      const double linear = x[i] > 0 ? x[i] : 0;
      EXPECT_EQ(y[i], linear) << x[i];
      EXPECT_EQ(dx[i], x[i] > 0 ? 1 : 0) << x[i];
      // In double e^-200 does not vanish.
      EXPECT_NEAR(product[i], linear, 1e-80) << x[i];
      EXPECT_NEAR(dgate_up[2 * i], x[i] > 0 ? 1 : 0, 1e-80) << x[i];
    }
    EXPECT_TRUE(std::isnan(y[8]));
    EXPECT_TRUE(std::isnan(dx[8]));
    EXPECT_TRUE(std::isnan(product[8]));
    EXPECT_TRUE(std::isnan(dgate_up[16]));
  }
}

TEST(Activation, ThreadsChangeNoBit) {
  for (const DType dtype : kFloatDTypes) {
    testing::expect_same_bits(name(dtype), 0, [&](Context& context) {
      const Operand gate_up = Operand::random({61, 301, 2}, dtype, "gate_up"),
                    dy = Operand::random({61, 301}, dtype, "dy");
      Operand y({61, 301}, dtype), dgate_up({61, 301, 2}, dtype), z({61, 301}, dtype), dz({61, 301}, dtype);
      swiglu(context, gate_up.tensor(), y.tensor());
      swiglu_backward(context, dy.tensor(), gate_up.tensor(), dgate_up.tensor());
      gelu(context, dy.tensor(), z.tensor());
      gelu_backward(context, y.tensor(), dy.tensor(), dz.tensor());
      return testing::joined({&y, &dgate_up, &z, &dz});
    });
  }
}

TEST(Activation, WrongOperandsThrow) {
  Context context(testing::on_device({}));
  Operand gate_up({2, 3, 2}, DType::F32), y({2, 3}, DType::F32), other({3, 2}, DType::F32), wide({2, 3}, DType::F64);
  EXPECT_THROW(swiglu(context, gate_up.tensor(), other.tensor()), InternalError);
  EXPECT_THROW(swiglu(context, gate_up.tensor(), wide.tensor()), InternalError);
  EXPECT_THROW(gelu(context, y.tensor(), other.tensor()), InternalError);
}

}  // namespace
}  // namespace tessera
