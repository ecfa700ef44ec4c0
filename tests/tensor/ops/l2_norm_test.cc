#include "tensor/ops/l2_norm.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/central_difference.h"
#include "tests/support/operand.h"
#include "tests/support/same_bits.h"
#include "tests/support/tolerance.h"

namespace tessera {
namespace {

using testing::joined;
using testing::kFloatDTypes;
using testing::Operand;

constexpr double kEpsilon = 1e-6;

struct Case {
  Case(int64_t tokens, int64_t head_count, int64_t d, DType dtype)
      : heads(head_count),
        dim(d),
        width(first_column + heads * dim + 2),
        x(Operand::random({tokens, width}, dtype, "x", 2)),
        y({heads, tokens, dim}, dtype),
        rstd({heads, tokens}, accumulation_dtype(dtype)),
        dy(Operand::random({heads, tokens, dim}, dtype, "dy")),
        dx(Operand::random({tokens, width}, dtype, "dx")) {}

  void forward(Context& context) {
    l2_norm_heads(context, x.tensor(), first_column, kEpsilon, y.tensor(), rstd.tensor());
  }
  void backward(Context& context, const Tensor& to) {
    l2_norm_heads_backward(context, dy.tensor(), x.tensor(), first_column, rstd.tensor(), to);
  }

  static constexpr int64_t first_column = 3;
  int64_t heads, dim, width;
  Operand x, y, rstd, dy, dx;
};

void check(int64_t tokens, int64_t heads, int64_t dim, DType dtype) {
  SCOPED_TRACE(std::string(name(dtype)) + " " + std::to_string(tokens) + " x " + std::to_string(dim));
  Context context(testing::on_device({.threads = 2}));
  Case c(tokens, heads, dim, dtype);
  const Operand before = c.dx;
  c.forward(context);
  c.backward(context, c.dx.tensor());
  const double n = static_cast<double>(dim);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t wide = t * c.width + c.first_column + h * dim, narrow = (h * tokens + t) * dim;
      double squares = kEpsilon, along = 0, along_magnitude = 0;
      for (int64_t i = 0; i < dim; ++i) squares += c.x[wide + i] * c.x[wide + i];
      const double r = 1 / std::sqrt(squares);
      ASSERT_NEAR(c.rstd[h * tokens + t], r, testing::tolerance(accumulation_dtype(dtype), n + 6, r));
      for (int64_t i = 0; i < dim; ++i) {
        along += c.dy[narrow + i] * c.x[wide + i] * r;
        along_magnitude += std::abs(c.dy[narrow + i] * c.x[wide + i] * r);
      }
      for (int64_t i = 0; i < dim; ++i) {
        const double x = c.x[wide + i], dy = c.dy[narrow + i];
        ASSERT_NEAR(c.y[narrow + i], x * r, testing::tolerance(dtype, n + 8, std::abs(x * r)));
        ASSERT_NEAR(c.dx[wide + i], r * (dy - x * r * along),
                    testing::tolerance(dtype, 3 * n + 24, r * (std::abs(dy) + std::abs(x * r) * along_magnitude)));
      }
    }
    for (const int64_t i : {int64_t{0}, c.first_column - 1, c.width - 1})
      ASSERT_EQ(c.dx[t * c.width + i], before[t * c.width + i]) << "columns of others stay";
  }
}

TEST(L2Norm, MatchesTheFormula) {
  for (const DType dtype : kFloatDTypes) {
    for (const int64_t dim : {1, 7, 32, 100}) check(9, 3, dim, dtype);
    check(0, 2, 8, dtype);
  }
}

TEST(L2Norm, GradientsMatchCentralDifferences) {
  Context context(testing::on_device({}));
  Case c(3, 2, 5, DType::F64);
  c.dx = Operand::filled({3, c.width}, DType::F64, 0);
  c.forward(context);
  c.backward(context, c.dx.tensor());
  testing::expect_gradient(
      c.x, c.dx,
      [&] {
        c.forward(context);
        return testing::dot(c.y, c.dy);
      },
      "dx");
}

TEST(L2Norm, RowsOfZerosHaveGradients) {
  Context context(testing::on_device({}));
  for (const DType dtype : kFloatDTypes) {
    Case c(2, 1, 4, dtype);
    c.x = Operand::filled({2, c.width}, dtype, 0);
    c.forward(context);
    c.backward(context, c.dx.tensor());
    for (int64_t i = 0; i < c.dx.size(); ++i) EXPECT_TRUE(std::isfinite(c.dx[i]));
  }
}

TEST(L2Norm, BackwardMayWriteOverItsInputAndThreadsChangeNoBit) {
  for (const DType dtype : kFloatDTypes) {
    testing::expect_same_bits(name(dtype), 0, [&](Context& context) {
      Case c(317, 2, 20, dtype);
      c.forward(context);
      c.dx = c.x;
      c.backward(context, c.dx.tensor());
      c.backward(context, c.x.tensor());
      EXPECT_EQ(c.x.bytes(), c.dx.bytes());
      return joined({&c.y, &c.rstd, &c.dx});
    });
  }
}

TEST(L2Norm, ColumnsSplitAndJoinAgain) {
  for (const DType dtype : kFloatDTypes) {
    Context context(testing::on_device({.threads = 2}));
    Case c(70, 3, 11, dtype);
    Operand back = c.dx;
    split_columns(context, c.x.tensor(), c.first_column, c.y.tensor());
    split_columns_backward(context, c.y.tensor(), c.first_column, back.tensor());
    for (int64_t i = 0; i < back.size(); ++i) {
      const int64_t column = i % c.width;
      const bool moved = column >= c.first_column && column < c.first_column + c.heads * c.dim;
      ASSERT_EQ(back[i], moved ? c.x[i] : c.dx[i]);
    }
  }
}

TEST(L2Norm, WrongOperandsThrow) {
  Context context(testing::on_device({}));
  Case c(4, 2, 5, DType::F32);
  EXPECT_THROW(l2_norm_heads(context, c.x.tensor(), 6, kEpsilon, c.y.tensor(), c.rstd.tensor()), InternalError);
  EXPECT_THROW(l2_norm_heads(context, c.x.tensor(), 3, kEpsilon, c.y.tensor(), c.y.tensor()), InternalError);
  EXPECT_THROW(split_columns(context, c.y.tensor(), 0, c.y.tensor()), InternalError);
}

}  // namespace
}  // namespace tessera
