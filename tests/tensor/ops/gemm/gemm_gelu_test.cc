#include "tensor/ops/gemm/gemm_gelu.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "tensor/ops/activation.h"
#include "tests/support/operand.h"
#include "tests/support/same_bits.h"
#include "tests/support/tolerance.h"

#ifdef TESSERA_TEST_CUDA
#include "tensor/context/runtime.h"
#include "tensor/ops/gemm/gemm_cuda.h"
#endif

namespace tessera {
namespace {

using testing::kFloatDTypes;
using testing::Operand;

// Rows of 8, 48 and 64 may have GELU behind the product in one kernel; the others never.
struct Sizes {
  int64_t m, n, k;
};
constexpr Sizes kSizes[] = {{1, 1, 1}, {3, 8, 5}, {17, 33, 65}, {64, 48, 32}, {40, 64, 96}, {0, 8, 3}, {4, 0, 3}};

bool in_one_kernel([[maybe_unused]] Context& context, [[maybe_unused]] const Sizes& s, [[maybe_unused]] DType dtype) {
#ifdef TESSERA_TEST_CUDA
  return s.m > 0 && s.n > 0 && cuda::gelu_may_follow(context.cuda().device(), {s.m, s.n, s.k}, dtype, true);
#else
  return false;
#endif
}

// x = op(A) op(B) + bias at one place, in double, and the magnitudes of its terms.
struct Sum {
  double value = 0, magnitude = 0;

  void add(double term) {
    value += term;
    magnitude += std::abs(term);
  }
};

Sum sum_at(const Sizes& s, const Operand& a, const Operand& b, Transpose stored_b, int64_t i, int64_t j) {
  Sum sum;
  for (int64_t p = 0; p < s.k; ++p) sum.add(a[i * s.k + p] * b[stored_b == Transpose::Yes ? j * s.k + p : p * s.n + j]);
  return sum;
}

constexpr double kRoot =
    2 * std::numbers::sqrt2 * std::numbers::inv_sqrtpi;  // of 2u, u = sqrt(2/pi) (x + 0.044715 x^3)
double argument(double x) { return kRoot * (x + 0.044715 * x * x * x); }
double argument_slope(double x) { return kRoot * (1 + 3 * 0.044715 * x * x); }
double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double gelu_exact(double x) { return x * sigmoid(argument(x)); }
double gelu_roundings(double x) { return 5 + 7 * std::abs(argument(x)); }
constexpr double kSteepest = 1.13;  // largest derivative of GELU

// What a kernel of the matrix library may lose with the instruction tanh.approx.f32: 2^-11 (PTX ISA, "tanh").
double approximated(bool in_one) { return in_one ? 0x1p-11 : 0; }

Operand matrix_b(const Sizes& s, Transpose stored, DType dtype) {
  return Operand::random(stored == Transpose::Yes ? Shape{s.n, s.k} : Shape{s.k, s.n}, dtype, "b", 0.3);
}

void check_forward(const Sizes& s, DType dtype, Transpose stored_b, bool biased) {
  Context context(testing::on_device({.threads = 2}));
  const Operand a = Operand::random({s.m, s.k}, dtype, "a"), b = matrix_b(s, stored_b, dtype);
  const Operand bias = Operand::random({s.n}, dtype, "bias");
  const ConstTensor added = biased ? bias.tensor() : ConstTensor();
  Operand x({s.m, s.n}, dtype), y({s.m, s.n}, dtype), again({s.m, s.n}, dtype);
  gemm_gelu_prepare(context, a.tensor(), b.tensor(), y.tensor(), {.b = stored_b}, added);
  EXPECT_EQ(context.matrix_flops(), 0);
  gemm_gelu(context, a.tensor(), b.tensor(), x.tensor(), y.tensor(), {.b = stored_b}, added);
  EXPECT_EQ(context.matrix_flops(), 2 * s.m * s.n * s.k);
  const bool in_one = in_one_kernel(context, s, dtype);
  for (int64_t i = 0; i < s.m; ++i) {
    for (int64_t j = 0; j < s.n; ++j) {
      Sum sum = sum_at(s, a, b, stored_b, i, j);
      if (biased) sum.add(bias[j]);
      const double of_x = testing::tolerance(dtype, static_cast<double>(s.k) + 2, sum.magnitude);
      ASSERT_NEAR(x[i * s.n + j], sum.value, of_x);
      const double exact = gelu_exact(sum.value);
      const double of_y = testing::tolerance(dtype, gelu_roundings(sum.value), std::abs(exact)) +
                          approximated(in_one) * std::abs(sum.value) / 2;
      ASSERT_NEAR(y[i * s.n + j], exact, kSteepest * of_x + of_y) << sum.value;
    }
  }
  // In one kernel the activation has not seen x rounded; elsewhere it is that of x, to the last bit.
  gelu(context, x.tensor(), again.tensor());
  context.synchronize();
  const bool same = y.bytes() == again.bytes();
  EXPECT_TRUE(in_one ? s.m * s.n < 100 || !same : same) << s.m << "x" << s.n << " " << name(dtype);
}

TEST(GemmGelu, IsTheActivationOfTheProduct) {
  for (const DType dtype : kFloatDTypes) {
    for (const Sizes& s : kSizes) {
      for (const Transpose b : {Transpose::No, Transpose::Yes}) {
        for (const bool biased : {false, true}) check_forward(s, dtype, b, biased);
      }
    }
  }
}

TEST(GemmGelu, BackwardIsTheProductTimesTheDerivative) {
  for (const DType dtype : kFloatDTypes) {
    for (const Sizes& s : kSizes) {
      for (const Transpose stored_b : {Transpose::No, Transpose::Yes}) {
        Context context(testing::on_device({.threads = 2}));
        const Operand a = Operand::random({s.m, s.k}, dtype, "a"), b = matrix_b(s, stored_b, dtype);
        const Operand x = Operand::random({s.m, s.n}, dtype, "x", 2);
        Operand dx({s.m, s.n}, dtype);
        gemm_gelu_backward_prepare(context, a.tensor(), b.tensor(), dx.tensor(), {.b = stored_b});
        gemm_gelu_backward(context, a.tensor(), b.tensor(), x.tensor(), dx.tensor(), {.b = stored_b});
        EXPECT_EQ(context.matrix_flops(), 2 * s.m * s.n * s.k);
        const bool in_one = in_one_kernel(context, s, dtype);
        for (int64_t i = 0; i < dx.size(); ++i) {
          const Sum sum = sum_at(s, a, b, stored_b, i / s.n, i % s.n);
          const double at = argument(x[i]), steep = argument_slope(x[i]), g = sigmoid(at);
          const double slope = g + x[i] * g * (1 - g) * steep, magnitude = g + std::abs(x[i]) * g * steep;
          const double of_sum = testing::tolerance(dtype, static_cast<double>(s.k) + 2, sum.magnitude);
          const double of_slope =
              testing::tolerance(dtype, 2 * gelu_roundings(x[i]) + 10, std::abs(sum.value) * magnitude) +
              approximated(in_one) * std::abs(sum.value) * (0.5 + std::abs(x[i]) * steep);
          ASSERT_NEAR(dx[i], sum.value * slope, of_sum * kSteepest + of_slope) << x[i];
        }
      }
    }
  }
}

TEST(GemmGelu, AnyAlignmentWillDo) {
  Context context(testing::on_device({.threads = 1}));
  const Operand a = Operand::random({4, 8}, DType::BF16, "a"), b = Operand::random({8, 8}, DType::BF16, "b");
  Operand x({33}, DType::BF16), y({33}, DType::BF16), again({33}, DType::BF16);
  const auto odd = [](Operand& t) { return t.tensor().rows(1, 33).reshape({4, 8}); };
  gemm_gelu(context, a.tensor(), b.tensor(), odd(x), odd(y), {});
  gelu(context, odd(x), odd(again));
  context.synchronize();
  for (int64_t i = 0; i < 32; ++i) {
    const Sum sum = sum_at({4, 8, 8}, a, b, Transpose::No, i / 8, i % 8);
    EXPECT_NEAR(x[i + 1], sum.value, testing::tolerance(DType::BF16, 10, sum.magnitude));
    EXPECT_EQ(y[i + 1], again[i + 1]);
  }
}

TEST(GemmGelu, RefusesWhatDoesNotFit) {
  Context context({});
  const Operand a = Operand::random({2, 3}, DType::F32, "a"), b = Operand::random({3, 5}, DType::F32, "b");
  Operand x({2, 5}, DType::F32), y({2, 5}, DType::F32), other({5, 2}, DType::F32), wide({2, 5}, DType::F64);
  EXPECT_THROW(gemm_gelu(context, a.tensor(), b.tensor(), other.tensor(), y.tensor(), {}), InternalError);
  EXPECT_THROW(gemm_gelu(context, a.tensor(), b.tensor(), wide.tensor(), y.tensor(), {}), InternalError);
  EXPECT_THROW(gemm_gelu(context, a.tensor(), b.tensor(), x.tensor(), y.tensor(), {.c = Write::Accumulate}),
               InternalError);
  EXPECT_THROW(gemm_gelu_backward(context, a.tensor(), b.tensor(), other.tensor(), y.tensor(), {}), InternalError);
}

}  // namespace
}  // namespace tessera
