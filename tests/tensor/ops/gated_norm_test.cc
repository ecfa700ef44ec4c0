#include "tensor/ops/gated_norm.h"

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
  Case(int64_t tokens, int64_t heads, int64_t dim, DType dtype)
      : x(Operand::random({tokens, heads, dim}, dtype, "x", 2)),
        gate(Operand::random({tokens, heads, dim}, dtype, "gate", 2)),
        weight(Operand::random({dim}, dtype, "weight")),
        dy(Operand::random({tokens, heads, dim}, dtype, "dy")),
        y({tokens, heads, dim}, dtype),
        rstd({tokens, heads}, accumulation_dtype(dtype)),
        dx({tokens, heads, dim}, dtype),
        dgate({tokens, heads, dim}, dtype),
        dweight(Operand::random({dim}, accumulation_dtype(dtype), "dweight")) {}

  void forward(Context& context) {
    gated_rms_norm(context, x.tensor(), gate.tensor(), weight.tensor(), kEpsilon, y.tensor(), rstd.tensor());
  }
  void backward(Context& context, const Tensor& to_x, const Tensor& to_gate) {
    gated_rms_norm_backward(context, dy.tensor(), x.tensor(), gate.tensor(), weight.tensor(), rstd.tensor(), to_x,
                            to_gate, dweight.tensor());
  }

  Operand x, gate, weight, dy, y, rstd, dx, dgate, dweight;
};

int64_t workspace(int64_t dim, DType dtype, int threads = 2) {
  return gated_rms_norm_backward_workspace({testing::kDevice, threads}, dim, dtype);
}

// exp(-g) of a gate is off by the rounding of its argument too, which counts |g| times.
double gate_roundings(double g) { return 12 + 2 * std::abs(g); }

void check(int64_t tokens, int64_t heads, int64_t dim, DType dtype) {
  SCOPED_TRACE(std::string(name(dtype)) + " " + std::to_string(tokens) + " x " + std::to_string(dim));
  Context context(testing::on_device({.threads = 2, .workspace_bytes = workspace(dim, dtype)}));
  Case c(tokens, heads, dim, dtype);
  const Operand before = c.dweight;
  c.forward(context);
  c.backward(context, c.dx.tensor(), c.dgate.tensor());
  EXPECT_EQ(context.workspace().high_water(), workspace(dim, dtype));
  const double n = static_cast<double>(dim);
  std::vector<double> dweight(dim), magnitude(dim);
  for (int64_t row = 0; row < tokens * heads; ++row) {
    double squares = 0, mean = 0, mean_magnitude = 0, steepest = 0;
    for (int64_t i = row * dim; i < (row + 1) * dim; ++i) squares += c.x[i] * c.x[i] / n;
    const double r = 1 / std::sqrt(squares + kEpsilon);
    for (int64_t i = 0; i < dim; ++i) {
      const int64_t at = row * dim + i;
      const double g = c.gate[at], silu = g / (1 + std::exp(-g)), normed = c.x[at] * r;
      mean += c.dy[at] * c.weight[i] * silu * normed / n;
      mean_magnitude += std::abs(c.dy[at] * c.weight[i] * silu * normed) / n;
      dweight[i] += c.dy[at] * normed * silu;
      magnitude[i] += std::abs(c.dy[at] * normed * silu);
      steepest = std::max(steepest, gate_roundings(g));
    }
    for (int64_t i = 0; i < dim; ++i) {
      const int64_t at = row * dim + i;
      const double g = c.gate[at], s = 1 / (1 + std::exp(-g)), normed = c.x[at] * r, w = c.weight[i], dy = c.dy[at];
      const double roundings = n + 8 + steepest;
      ASSERT_NEAR(c.y[at], normed * w * g * s, testing::tolerance(dtype, roundings, std::abs(normed * w * g * s)));
      ASSERT_NEAR(c.dx[at], r * (dy * w * g * s - normed * mean),
                  testing::tolerance(dtype, 3 * n + 24 + 2 * steepest,
                                     r * (std::abs(dy * w * g * s) + std::abs(normed) * mean_magnitude)));
      ASSERT_NEAR(c.dgate[at], dy * normed * w * (s + g * s * (1 - s)),
                  testing::tolerance(dtype, 2 * roundings, std::abs(dy * normed * w) * (s + std::abs(g) * s)));
    }
  }
  const DType accumulation = accumulation_dtype(dtype);
  for (int64_t i = 0; i < dim; ++i) {
    const double roundings = static_cast<double>(tokens * heads) + n + 40;
    ASSERT_NEAR(c.dweight[i], before[i] + dweight[i],
                testing::tolerance(accumulation, roundings, std::abs(before[i]) + magnitude[i]));
  }
}

TEST(GatedNorm, MatchesTheFormula) {
  for (const DType dtype : kFloatDTypes) {
    for (const int64_t dim : {1, 7, 32, 100}) check(5, 3, dim, dtype);
    check(300, 4, 16, dtype);  // several waves of blocks of rows
    check(0, 2, 8, dtype);
  }
}

TEST(GatedNorm, GradientsMatchCentralDifferences) {
  Context context(testing::on_device({.workspace_bytes = 4 << 20}));
  Case c(3, 2, 5, DType::F64);
  c.dweight = Operand::filled({5}, DType::F64, 0);
  c.forward(context);
  c.backward(context, c.dx.tensor(), c.dgate.tensor());
  const auto loss = [&] {
    c.forward(context);
    return testing::dot(c.y, c.dy);
  };
  testing::expect_gradient(c.x, c.dx, loss, "dx");
  testing::expect_gradient(c.gate, c.dgate, loss, "dgate");
  testing::expect_gradient(c.weight, c.dweight, loss, "dweight");
}

TEST(GatedNorm, GatesFarOutStayFinite) {
  Context context(testing::on_device({.workspace_bytes = 4 << 20}));
  for (const DType dtype : kFloatDTypes) {
    Case c(1, 1, 4, dtype);
    for (int64_t i = 0; i < 4; ++i) c.gate.set(i, i % 2 == 0 ? 1e4 : -1e4);
    c.forward(context);
    c.backward(context, c.dx.tensor(), c.dgate.tensor());
    for (const Operand* x : {&c.y, &c.dx, &c.dgate}) {
      for (int64_t i = 0; i < 4; ++i) EXPECT_TRUE(std::isfinite((*x)[i]));
    }
  }
}

TEST(GatedNorm, BackwardMayWriteOverItsInputsAndThreadsChangeNoBit) {
  for (const DType dtype : kFloatDTypes) {
    testing::expect_same_bits(name(dtype), workspace(20, dtype, 1), [&](Context& context) {
      Case c(317, 2, 20, dtype), over(317, 2, 20, dtype);
      c.forward(context);
      over.forward(context);
      c.backward(context, c.dx.tensor(), c.dgate.tensor());
      over.backward(context, over.x.tensor(), over.gate.tensor());
      EXPECT_EQ(c.dx.bytes(), over.x.bytes());
      EXPECT_EQ(c.dgate.bytes(), over.gate.bytes());
      return joined({&c.y, &c.rstd, &c.dx, &c.dgate, &c.dweight});
    });
  }
}

TEST(GatedNorm, WrongOperandsThrow) {
  Context context(testing::on_device({}));
  Case c(4, 2, 5, DType::F32);
  EXPECT_THROW(
      gated_rms_norm(context, c.x.tensor(), c.weight.tensor(), c.weight.tensor(), 1e-6, c.y.tensor(), c.rstd.tensor()),
      InternalError);
  EXPECT_THROW(
      gated_rms_norm(context, c.x.tensor(), c.gate.tensor(), c.weight.tensor(), 1e-6, c.y.tensor(), c.weight.tensor()),
      InternalError);
}

}  // namespace
}  // namespace tessera
