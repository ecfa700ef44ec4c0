#include "tensor/ops/norm.h"

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

constexpr double kEpsilon = 1e-5;
enum class Kind { Rms, Layer };

// One row in double: statistics, and the magnitudes that its error bounds are made of.
struct Row {
  double mean = 0, rstd = 0, mean_magnitude = 0;
};

Row statistics(Kind kind, const Operand& x, int64_t t, int64_t hidden) {
  Row row;
  const double n = static_cast<double>(hidden);
  for (int64_t i = 0; i < hidden; ++i) {
    row.mean += kind == Kind::Layer ? x[t * hidden + i] / n : 0;
    row.mean_magnitude += kind == Kind::Layer ? std::abs(x[t * hidden + i]) / n : 0;
  }
  double variance = 0;
  for (int64_t i = 0; i < hidden; ++i) variance += std::pow(x[t * hidden + i] - row.mean, 2) / n;
  row.rstd = 1 / std::sqrt(variance + kEpsilon);
  return row;
}

// A norm's operands for tokens x hidden, all in `dtype`.
struct Case {
  Case(Kind k, int64_t tokens, int64_t hidden, DType dtype)
      : kind(k),
        x(Operand::random({tokens, hidden}, dtype, "x", 2)),
        weight(Operand::random({hidden}, dtype, "weight")),
        bias(Operand::random({hidden}, dtype, "bias")),
        dy(Operand::random({tokens, hidden}, dtype, "dy")),
        residual(Operand::random({tokens, hidden}, dtype, "residual")),
        y({tokens, hidden}, dtype),
        mean({tokens}, accumulation_dtype(dtype)),
        rstd({tokens}, accumulation_dtype(dtype)),
        dx({tokens, hidden}, dtype),
        dweight(Operand::random({hidden}, accumulation_dtype(dtype), "dweight")),
        dbias(Operand::random({hidden}, accumulation_dtype(dtype), "dbias")) {}

  void forward(Context& context) {
    if (kind == Kind::Rms)
      rms_norm(context, x.tensor(), weight.tensor(), kEpsilon, y.tensor(), rstd.tensor());
    else
      layer_norm(context, x.tensor(), weight.tensor(), bias.tensor(), kEpsilon, y.tensor(), mean.tensor(),
                 rstd.tensor());
  }

  void backward(Context& context, const ConstTensor& residual_gradient, const Tensor& to) {
    if (kind == Kind::Rms)
      rms_norm_backward(context, dy.tensor(), x.tensor(), weight.tensor(), rstd.tensor(), residual_gradient, to,
                        dweight.tensor());
    else
      layer_norm_backward(context, dy.tensor(), x.tensor(), weight.tensor(), mean.tensor(), rstd.tensor(),
                          residual_gradient, to, dweight.tensor(), dbias.tensor());
  }

  Kind kind;
  Operand x, weight, bias, dy, residual, y, mean, rstd, dx, dweight, dbias;
};

constexpr int64_t kWorkspace = 4 << 20;

void check_forward(Kind kind, int64_t tokens, int64_t hidden, DType dtype) {
  SCOPED_TRACE(std::string(name(dtype)) + " " + std::to_string(tokens) + " x " + std::to_string(hidden));
  Context context(testing::on_device({.threads = 2, .workspace_bytes = kWorkspace}));
  Case c(kind, tokens, hidden, dtype);
  c.forward(context);
  const DType accumulation = accumulation_dtype(dtype);
  const double n = static_cast<double>(hidden);
  for (int64_t t = 0; t < tokens; ++t) {
    const Row row = statistics(kind, c.x, t, hidden);
    // Relative error of r: half that of the variance (a sum of n squares of centred values, each off by the mean's
    // error, which counts relative to the deviation), then a root and a quotient.
    const double shift = (n + 2) * row.mean_magnitude * row.rstd;
    const double roundings = n + 8 + 2 * shift;
    ASSERT_NEAR(c.rstd[t], row.rstd, testing::tolerance(accumulation, roundings, row.rstd));
    if (kind == Kind::Layer) {
      ASSERT_NEAR(c.mean[t], row.mean, testing::tolerance(accumulation, n + 1, row.mean_magnitude));
    }
    for (int64_t i = 0; i < hidden; ++i) {
      const double scaled = c.x[t * hidden + i] * row.rstd * c.weight[i];
      const double centred = (c.x[t * hidden + i] - row.mean) * row.rstd * c.weight[i];
      const double offset = kind == Kind::Layer ? c.bias[i] : 0;
      const double magnitude =
          std::abs(scaled) + std::abs(row.mean_magnitude * row.rstd * c.weight[i]) + std::abs(offset);
      ASSERT_NEAR(c.y[t * hidden + i], centred + offset, testing::tolerance(dtype, roundings + 4, magnitude));
    }
  }
}

TEST(Norm, ForwardMatchesTheFormula) {
  for (const Kind kind : {Kind::Rms, Kind::Layer}) {
    for (const DType dtype : kFloatDTypes) {
      for (const int64_t hidden : {1, 2, 31, 33, 200, 1000}) check_forward(kind, 5, hidden, dtype);
      check_forward(kind, 0, 16, dtype);
      check_forward(kind, 130, 64, dtype);
    }
  }
}

// The backward formulas in double, from the statistics that the operation was given, with bounds.
void check_backward(Kind kind, int64_t tokens, int64_t hidden, DType dtype) {
  SCOPED_TRACE(std::string(name(dtype)) + " " + std::to_string(tokens) + " x " + std::to_string(hidden));
  const auto stated = [&](Target target) {
    return norm_backward_workspace(target, hidden, dtype, kind == Kind::Layer ? 2 : 1);
  };
  Context context(testing::on_device({.threads = 2, .workspace_bytes = stated({testing::kDevice, 2})}));
  Case c(kind, tokens, hidden, dtype);
  c.forward(context);
  const Operand dweight_before = c.dweight, dbias_before = c.dbias;
  c.backward(context, c.residual.tensor(), c.dx.tensor());
  if (tokens > 0) {
    EXPECT_EQ(context.workspace().high_water(), stated(context.target()));
  }

  const double n = static_cast<double>(hidden);
  std::vector<double> dweight(hidden), dweight_magnitude(hidden), dbias(hidden), dbias_magnitude(hidden);
  for (int64_t t = 0; t < tokens; ++t) {
    const double r = c.rstd[t], m = kind == Kind::Layer ? c.mean[t] : 0;
    double mean_g = 0, mean_gn = 0, abs_g = 0, abs_gn = 0;
    for (int64_t i = 0; i < hidden; ++i) {
      const double x = c.x[t * hidden + i], dy = c.dy[t * hidden + i];
      const double g = dy * c.weight[i], normed = (x - m) * r, loose = (std::abs(x) + std::abs(m)) * r;
      mean_gn += g * normed / n;
      abs_gn += std::abs(g) * loose / n;
      mean_g += kind == Kind::Layer ? g / n : 0;
      abs_g += kind == Kind::Layer ? std::abs(g) / n : 0;
      dweight[i] += dy * normed;
      dweight_magnitude[i] += std::abs(dy) * loose;
      dbias[i] += dy;
      dbias_magnitude[i] += std::abs(dy);
    }
    for (int64_t i = 0; i < hidden; ++i) {
      const int64_t at = t * hidden + i;
      const double g = c.dy[at] * c.weight[i], normed = (c.x[at] - m) * r;
      const double loose = (std::abs(c.x[at]) + std::abs(m)) * r;
      const double exact = r * (g - mean_g - normed * mean_gn) + c.residual[at];
      const double magnitude = r * (std::abs(g) + abs_g + loose * abs_gn) + std::abs(c.residual[at]);
      ASSERT_NEAR(c.dx[at], exact, testing::tolerance(dtype, n + 12, magnitude));
    }
  }
  const DType accumulation = accumulation_dtype(dtype);
  for (int64_t i = 0; i < hidden; ++i) {
    const double roundings = static_cast<double>(tokens) + 4;
    ASSERT_NEAR(c.dweight[i], dweight_before[i] + dweight[i],
                testing::tolerance(accumulation, roundings, std::abs(dweight_before[i]) + dweight_magnitude[i]));
    if (kind == Kind::Layer) {
      ASSERT_NEAR(c.dbias[i], dbias_before[i] + dbias[i],
                  testing::tolerance(accumulation, roundings, std::abs(dbias_before[i]) + dbias_magnitude[i]));
    }
  }
}

TEST(Norm, BackwardMatchesTheFormula) {
  for (const Kind kind : {Kind::Rms, Kind::Layer}) {
    for (const DType dtype : kFloatDTypes) {
      for (const int64_t hidden : {1, 2, 31, 33, 200}) check_backward(kind, 5, hidden, dtype);
      check_backward(kind, 0, 16, dtype);
      check_backward(kind, 300, 48, dtype);  // several waves of blocks of tokens, the last one short
      check_backward(kind, 1100, 48, dtype);
    }
  }
}

TEST(Norm, BackwardOfRowsLongerThanSharedMemory) {
  for (const int64_t hidden : {15000, 15001}) check_backward(Kind::Layer, 3, hidden, DType::F64);
}

TEST(Norm, GradientsMatchCentralDifferences) {
  Context context(testing::on_device({.workspace_bytes = kWorkspace}));
  for (const Kind kind : {Kind::Rms, Kind::Layer}) {
    Case c(kind, 3, 7, DType::F64);
    c.dweight = Operand::filled({7}, DType::F64, 0);
    c.dbias = Operand::filled({7}, DType::F64, 0);
    c.forward(context);
    c.backward(context, {}, c.dx.tensor());
    const auto loss = [&] {
      c.forward(context);
      return testing::dot(c.y, c.dy);
    };
    testing::expect_gradient(c.x, c.dx, loss, "dx");
    testing::expect_gradient(c.weight, c.dweight, loss, "dweight");
    if (kind == Kind::Layer) testing::expect_gradient(c.bias, c.dbias, loss, "dbias");
  }
}

TEST(Norm, BackwardMayWriteOverItsInputs) {
  for (const Kind kind : {Kind::Rms, Kind::Layer}) {
    for (const DType dtype : kFloatDTypes) {
      Context context(testing::on_device({.threads = 2, .workspace_bytes = kWorkspace}));
      Case apart(kind, 70, 100, dtype);
      apart.forward(context);
      apart.backward(context, apart.residual.tensor(), apart.dx.tensor());
      for (Operand Case::*target : {&Case::x, &Case::dy, &Case::residual}) {
        Case over(kind, 70, 100, dtype);
        over.forward(context);
        over.backward(context, over.residual.tensor(), (over.*target).tensor());
        EXPECT_EQ((over.*target).bytes(), apart.dx.bytes());
        EXPECT_EQ(over.dweight.bytes(), apart.dweight.bytes());
        EXPECT_EQ(over.dbias.bytes(), apart.dbias.bytes());
      }
    }
  }
}

TEST(Norm, ThreadsChangeNoBit) {
  for (const Kind kind : {Kind::Rms, Kind::Layer}) {
    for (const DType dtype : kFloatDTypes) {
      testing::expect_same_bits(name(dtype), kWorkspace, [&](Context& context) {
        Case c(kind, 517, 75, dtype);
        c.forward(context);
        c.backward(context, c.residual.tensor(), c.dx.tensor());
        return joined({&c.y, &c.mean, &c.rstd, &c.dx, &c.dweight, &c.dbias});
      });
    }
  }
}

TEST(Norm, WrongOperandsThrow) {
  Context context(testing::on_device({.workspace_bytes = kWorkspace}));
  Case c(Kind::Rms, 2, 8, DType::BF16);
  EXPECT_THROW(rms_norm(context, c.x.tensor(), c.weight.tensor(), kEpsilon, c.y.tensor(), c.weight.tensor()),
               InternalError);
  EXPECT_THROW(rms_norm(context, c.x.tensor(), c.x.tensor(), kEpsilon, c.y.tensor(), c.rstd.tensor()), InternalError);
  Operand empty_rows({3, 0}, DType::F32), no_weight({0}, DType::F32), rstd({3}, DType::F32);
  EXPECT_THROW(rms_norm(context, empty_rows.tensor(), no_weight.tensor(), kEpsilon, empty_rows.tensor(), rstd.tensor()),
               InternalError);
}

}  // namespace
}  // namespace tessera
