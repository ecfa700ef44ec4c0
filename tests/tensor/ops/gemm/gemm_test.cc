#include "tensor/ops/gemm/gemm.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tensor/context/matrix_library.h"
#include "tests/support/operand.h"
#include "tests/support/tolerance.h"

namespace tessera {
namespace {

using testing::kFloatDTypes;
using testing::Operand;

Shape stored(int64_t rows, int64_t columns, Transpose transpose) {
  return transpose == Transpose::No ? Shape{rows, columns} : Shape{columns, rows};
}

// Element [i, j] of op(X), X stored for [rows, columns].
double at(const Operand& x, int64_t i, int64_t j, int64_t rows, int64_t columns, Transpose transpose) {
  return transpose == Transpose::No ? x[i * columns + j] : x[j * rows + i];
}

struct Sizes {
  int64_t m, n, k;
};
constexpr Sizes kSizes[] = {{1, 1, 1}, {3, 5, 7}, {17, 33, 65}, {64, 48, 32}, {0, 4, 3}, {4, 0, 3}, {4, 3, 0}};

// Every element against a plain sum in double, for one choice of dtypes and options.
void check(const Sizes& s, DType dtype, DType result, const GemmOptions& options, bool biased) {
  Context context(testing::on_device({.threads = 2}));
  const Operand a = Operand::random(stored(s.m, s.k, options.a), dtype, "a");
  const Operand b = Operand::random(stored(s.k, s.n, options.b), dtype, "b");
  const Operand bias = Operand::random({s.n}, dtype, "bias"), before = Operand::random({s.m, s.n}, result, "c");
  Operand c = options.c == Write::Accumulate ? before : Operand({s.m, s.n}, result);
  gemm(context, a.tensor(), b.tensor(), c.tensor(), options, biased ? bias.tensor() : ConstTensor());
  EXPECT_EQ(context.matrix_flops(), 2 * s.m * s.n * s.k);
  for (int64_t i = 0; i < s.m; ++i) {
    for (int64_t j = 0; j < s.n; ++j) {
      double sum = options.c == Write::Accumulate ? before[i * s.n + j] : biased ? bias[j] : 0.0;
      double magnitude = std::abs(sum);
      for (int64_t p = 0; p < s.k; ++p) {
        const double term = at(a, i, p, s.m, s.k, options.a) * at(b, p, j, s.k, s.n, options.b);
        sum += term;
        magnitude += std::abs(term);
      }
      const double bound =
          testing::tolerance(accumulation_dtype(dtype), result, static_cast<double>(s.k) + 2, magnitude);
      ASSERT_NEAR(c[i * s.n + j], sum, bound) << name(dtype) << " to " << name(result) << " " << s.m << "x" << s.n
                                              << "x" << s.k << " at " << i << ", " << j;
    }
  }
}

TEST(Gemm, EqualsThePlainSum) {
  for (const DType dtype : kFloatDTypes) {
    for (const DType result : {dtype, accumulation_dtype(dtype)}) {
      for (const Sizes& s : kSizes) {
        for (const Transpose a : {Transpose::No, Transpose::Yes}) {
          for (const Transpose b : {Transpose::No, Transpose::Yes}) {
            check(s, dtype, result, {.a = a, .b = b}, false);
            check(s, dtype, result, {.a = a, .b = b, .c = Write::Accumulate}, false);
          }
        }
      }
    }
  }
}

TEST(Gemm, AddsTheBiasToEveryRow) {
  for (const DType dtype : kFloatDTypes) {
    for (const Sizes& s : kSizes) check(s, dtype, dtype, {.b = Transpose::Yes}, true);
  }
}

TEST(Gemm, PreparedProductsAreGeneratedOnce) {
  Context context({});
  const ConstTensor a(nullptr, {8, 4}, DType::F32), b(nullptr, {4, 6}, DType::F32), c(nullptr, {8, 6}, DType::F32);
  gemm_prepare(context, a, b, c, {});
  EXPECT_EQ(context.matrix_library().primitives(), 1);
  const Operand x = Operand::random({8, 4}, DType::F32, "a"), y = Operand::random({4, 6}, DType::F32, "b");
  Operand z({8, 6}, DType::F32);
  gemm(context, x.tensor(), y.tensor(), z.tensor(), {});
  EXPECT_EQ(context.matrix_library().primitives(), 1);
  gemm(context, x.tensor(), y.tensor(), z.tensor(), {.c = Write::Accumulate});
  EXPECT_EQ(context.matrix_library().primitives(), 2);
}

TEST(Gemm, RefusesShapesAndDtypesThatDoNotFit) {
  Context context({});
  const Operand a = Operand::random({2, 3}, DType::F32, "a"), b = Operand::random({4, 5}, DType::F32, "b");
  Operand c({2, 5}, DType::F32), wide({2, 5}, DType::F64);
  EXPECT_THROW(gemm(context, a.tensor(), b.tensor(), c.tensor(), {}), InternalError);
  const Operand fits = Operand::random({3, 5}, DType::F32, "b");
  EXPECT_THROW(gemm(context, a.tensor(), fits.tensor(), wide.tensor(), {}), InternalError);
  EXPECT_THROW(gemm(context, a.tensor(), Operand::random({3, 5}, DType::BF16, "b").tensor(), c.tensor(), {}),
               InternalError);
}

}  // namespace
}  // namespace tessera
