// What the products ask of cuBLASLt, answered by the tests' own (tests/support/grid/cublas.cc). That they are right is
// shown by the tests of gemm, gemm_gelu and gemm_fp8, which run on it too.
#include <gtest/gtest.h>

#include <string>

#include "tensor/check.h"
#include "tensor/ops/gemm/gemm.h"
#include "tensor/ops/gemm/gemm_gelu.h"
#include "tests/support/operand.h"

extern "C" int fake_cublas_alive();
extern "C" int fake_cublas_heuristics();
extern "C" void fake_cublas_plain(bool only);

namespace tessera {
namespace {

using testing::Operand;

Context context_on_device() { return Context(testing::on_device({.threads = 1})); }

TEST(GemmLibrary, IsAskedOnceForAShapeAndGivenAllOfItBack) {
  const int alive = fake_cublas_alive(), before = fake_cublas_heuristics();
  {
    Context context = context_on_device();
    const Operand a = Operand::random({8, 16}, DType::BF16, "a"), b = Operand::random({16, 24}, DType::BF16, "b");
    Operand c({8, 24}, DType::BF16), other({8, 24}, DType::F32);
    for (int i = 0; i < 3; ++i) gemm(context, a.tensor(), b.tensor(), c.tensor(), {});
    EXPECT_EQ(fake_cublas_heuristics() - before, 1);
    gemm(context, a.tensor(), b.tensor(), other.tensor(), {});
    gemm(context, a.tensor(), b.tensor(), c.tensor(), {.c = Write::Accumulate});
    EXPECT_EQ(fake_cublas_heuristics() - before, 3) << "another dtype of the result, and a sum";
    EXPECT_GT(fake_cublas_alive(), alive);
  }
  EXPECT_EQ(fake_cublas_alive(), alive);
}

// A choice made for aligned operands is not used for others: the library would refuse it.
TEST(GemmLibrary, ChoosesAgainForOperandsThatAreNotAligned) {
  Context context = context_on_device();
  const Operand a = Operand::random({9 * 7 + 1}, DType::BF16, "a"), b = Operand::random({7, 5}, DType::BF16, "b");
  Operand c({9, 5}, DType::F32), shifted({9, 5}, DType::F32);
  const int before = fake_cublas_heuristics();
  const ConstTensor aligned = a.tensor().rows(0, 9 * 7).reshape({9, 7});
  const ConstTensor not_aligned = a.tensor().rows(1, 9 * 7 + 1).reshape({9, 7});
  gemm(context, aligned, b.tensor(), c.tensor(), {});
  gemm(context, not_aligned, b.tensor(), shifted.tensor(), {});
  EXPECT_EQ(fake_cublas_heuristics() - before, 2);
  double sum = 0;
  for (int64_t l = 0; l < 7; ++l) sum += a[1 + l] * b[l * 5];
  EXPECT_NEAR(shifted[0], sum, 1e-5);
}

// And for a bias that is not aligned, which an epilogue would load as if it were.
TEST(GemmLibrary, AddsABiasApartWhereItHasNoEpilogueForIt) {
  const Operand a = Operand::random({8, 16}, DType::BF16, "a"), b = Operand::random({16, 24}, DType::BF16, "b");
  const Operand bias = Operand::random({25}, DType::BF16, "bias");
  const auto product = [&](int64_t first) {
    Context context = context_on_device();  // that has not asked yet
    Operand c({8, 24}, DType::BF16);
    gemm(context, a.tensor(), b.tensor(), c.tensor(), {}, bias.tensor().rows(first, first + 24));
    testing::settle();
    return c;
  };
  const Operand fused = product(0), not_aligned = product(1);
  fake_cublas_plain(true);
  const Operand apart = product(0);
  fake_cublas_plain(false);
  for (int64_t i = 0; i < 8; ++i) {
    for (int64_t j = 0; j < 24; ++j) {
      double sum = 0;
      for (int64_t l = 0; l < 16; ++l) sum += a[i * 16 + l] * b[l * 24 + j];
      const double bound = 0.01 * (std::abs(sum) + 1);
      EXPECT_NEAR(fused[i * 24 + j], sum + bias[j], bound);
      EXPECT_NEAR(apart[i * 24 + j], sum + bias[j], bound);
      EXPECT_NEAR(not_aligned[i * 24 + j], sum + bias[j + 1], bound);
    }
  }
}

TEST(GemmLibrary, DoesGeluApartWhereItHasNoEpilogueForIt) {
  Context context = context_on_device();
  const Operand a = Operand::random({8, 16}, DType::BF16, "a"), b = Operand::random({24, 16}, DType::BF16, "b");
  Operand x({8, 24}, DType::BF16), y({8, 24}, DType::BF16), x_apart({8, 24}, DType::BF16),
      y_apart({8, 24}, DType::BF16);
  gemm_gelu(context, a.tensor(), b.tensor(), x.tensor(), y.tensor(), {.b = Transpose::Yes});
  fake_cublas_plain(true);
  {
    Context other = context_on_device();  // that has not asked yet
    gemm_gelu(other, a.tensor(), b.tensor(), x_apart.tensor(), y_apart.tensor(), {.b = Transpose::Yes});
    testing::settle();
  }
  fake_cublas_plain(false);
  for (int64_t i = 0; i < x.size(); ++i) {
    EXPECT_EQ(x[i], x_apart[i]);
    EXPECT_NEAR(y[i], y_apart[i], 0.02 * std::abs(y[i]) + 1e-3);
  }
}

}  // namespace
}  // namespace tessera
