#include "tensor/ops/gemm/gemm_fp8.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tensor/context/runtime.h"
#include "tests/support/operand.h"
#include "tests/support/tolerance.h"

namespace tessera {
namespace {

using testing::Operand;

double decode(DType format, std::byte code) {
  const auto bits = static_cast<uint8_t>(code);
  return format == DType::E4M3 ? e4m3::Format::decode(bits) : e5m2::Format::decode(bits);
}

class GemmFp8 : public ::testing::Test {
 protected:
  void SetUp() override {
#if defined(TESSERA_TEST_GPU)
    const Context context(testing::on_device({}));
    if (!context.cuda().device().has_fp8_units()) GTEST_SKIP() << context.cuda().device().name << " has no FP8 units";
#endif
  }
};

struct Float8Operand {
  Float8Operand(Context& context, const Shape& shape, DType format, const std::string& name, double size)
      : values(shape, format), scale({1}, DType::F32) {
    // Without elements a vector has no memory, which must not matter.
    const Operand x = Operand::random(shape, DType::BF16, name, size);
    quantise(context, x.tensor(), values.tensor(), {}, scale.tensor());
    context.synchronize();
  }
  Quantised view() { return {values.tensor(), scale.tensor()}; }
  double operator[](int64_t i) const { return scale[0] * decode(values.dtype(), values.bytes()[i]); }

  Operand values, scale;
};

// Units of a GPU add products with at least 14 bits (tensor/ops/gemm/gemm_fp8.h), elsewhere sums are in F32 or better.
double sum_bound(DType result, int64_t k, double magnitude) {
  const double bound = testing::tolerance(DType::F32, result, static_cast<double>(k) + 4, magnitude);
#if defined(TESSERA_TEST_GPU)
  return bound + static_cast<double>(k) * 0x1p-14 * magnitude;
#else
  return bound;
#endif
}

struct Sizes {
  int64_t m, n, k;
};
constexpr Sizes kSizes[] = {{16, 16, 16}, {32, 48, 64}, {48, 16, 160}, {0, 16, 16}, {16, 0, 16}, {16, 32, 0}};

// Every element against a plain sum in double of the quantised operands.
void check(const Sizes& s, DType format_a, DType format_b, DType result, Write write, bool biased) {
  Context context(testing::on_device({.threads = 2}));
  Float8Operand a(context, {s.m, s.k}, format_a, "a", 2e-3), b(context, {s.n, s.k}, format_b, "b", 30);
  const Operand bias = Operand::random({s.n}, DType::BF16, "bias"), before = Operand::random({s.m, s.n}, result, "c");
  Operand c = write == Write::Accumulate ? before : Operand({s.m, s.n}, result);
  gemm_fp8(context, a.view(), b.view(), c.tensor(), write, biased ? bias.tensor() : ConstTensor());
  context.synchronize();
  EXPECT_EQ(context.matrix_flops(), 2 * s.m * s.n * s.k);
  for (int64_t i = 0; i < s.m; ++i) {
    for (int64_t j = 0; j < s.n; ++j) {
      double sum = write == Write::Accumulate ? before[i * s.n + j] : biased ? bias[j] : 0.0;
      double magnitude = std::abs(sum);
      for (int64_t p = 0; p < s.k; ++p) {
        const double term = a[i * s.k + p] * b[j * s.k + p];
        sum += term;
        magnitude += std::abs(term);
      }
      ASSERT_NEAR(c[i * s.n + j], sum, sum_bound(result, s.k, magnitude))
          << name(format_a) << " by " << name(format_b) << " to " << name(result) << " " << s.m << "x" << s.n << "x"
          << s.k << " at " << i << ", " << j;
    }
  }
}

TEST_F(GemmFp8, EqualsThePlainSumOfTheQuantisedOperands) {
  constexpr DType kPairs[][2] = {{DType::E4M3, DType::E4M3}, {DType::E4M3, DType::E5M2}, {DType::E5M2, DType::E4M3}};
  for (const auto& [a, b] : kPairs) {
    for (const DType result : {DType::BF16, DType::F32}) {
      for (const Sizes& s : kSizes) {
        check(s, a, b, result, Write::Overwrite, false);
        check(s, a, b, result, Write::Accumulate, false);
      }
    }
  }
}

TEST_F(GemmFp8, AddsTheBiasToEveryRow) {
  for (const Sizes& s : kSizes) check(s, DType::E4M3, DType::E4M3, DType::BF16, Write::Overwrite, true);
}

TEST_F(GemmFp8, RefusesOperandsThatDoNotFit) {
  Context context(testing::on_device({}));
  Float8Operand a(context, {16, 32}, DType::E4M3, "a", 1), b(context, {16, 32}, DType::E5M2, "b", 1);
  Float8Operand other(context, {16, 48}, DType::E4M3, "b", 1);
  Operand c({16, 16}, DType::BF16), wide({16, 16}, DType::F64), bias({16}, DType::F32);
  EXPECT_THROW(gemm_fp8(context, b.view(), b.view(), c.tensor(), Write::Overwrite), InternalError);
  EXPECT_THROW(gemm_fp8(context, a.view(), other.view(), c.tensor(), Write::Overwrite), InternalError);
  EXPECT_THROW(gemm_fp8(context, a.view(), b.view(), wide.tensor(), Write::Overwrite), InternalError);
  EXPECT_THROW(gemm_fp8(context, a.view(), b.view(), c.tensor(), Write::Overwrite, bias.tensor()), InternalError);
  const Operand uneven({8, 32}, DType::E4M3);
  Operand small({8, 16}, DType::BF16);
  EXPECT_THROW(gemm_fp8(context, {uneven.tensor(), a.scale.tensor()}, b.view(), small.tensor(), Write::Overwrite),
               InternalError);
}

}  // namespace
}  // namespace tessera
