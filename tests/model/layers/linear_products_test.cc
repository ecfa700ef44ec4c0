// A linear layer's products in both formats against sums in double; those in 8 bits by bounds that follow from what
// quantising may change (tensor/ops/quantise.h).
#include "model/layers/linear_products.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "model/layers/linear.h"
#include "parallel/comm/comm_threads.h"
#include "tensor/ops/activation.h"
#include "tests/model/rig.h"
#include "tests/support/operand.h"
#include "tests/support/tolerance.h"

namespace tessera::testing {
namespace {

constexpr int64_t kTokens = 48, kIn = 64, kOut = 32;

// A matrix in double with what quantising may change of each element; nothing when it is not quantised.
struct Matrix {
  Matrix(const Operand& x, int64_t columns_, ProductFormat format, DType narrow) : columns(columns_) {
    double amax = 0;
    for (int64_t i = 0; i < x.size(); ++i) amax = std::max(amax, std::abs(x[i]));
    const bool e4m3 = narrow == DType::E4M3;
    const double scale = amax / (e4m3 ? 448 : 57344), half_smallest = e4m3 ? 0x1p-10 : 0x1p-17;
    for (int64_t i = 0; i < x.size(); ++i) {
      value.push_back(x[i]);
      const double size = std::abs(x[i]);
      error.push_back(
          format == ProductFormat::Fp8 ? unit_roundoff(narrow) * size + half_smallest * scale + 0x1p-22 * size : 0);
    }
  }
  size_t at(int64_t row, int64_t column) const { return static_cast<size_t>(row * columns + column); }

  int64_t columns;
  std::vector<double> value, error;
};

// result [rows, columns] = before + sum over k of a(i, k) b(k, j), within what the operands' errors and the sum's
// roundings make of it; and not nearer than roundings alone when the operands were quantised.
template <class A, class B>
void expect_product(const Operand& result, const std::vector<double>& before, int64_t rows, int64_t columns,
                    int64_t inner, const Matrix& a, A&& at_a, const Matrix& b, B&& at_b, bool quantised) {
  double most = 0;  // of the difference over what roundings allow
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      const auto at = static_cast<size_t>(i * columns + j);
      double sum = before[at], magnitude = std::abs(before[at]), changed = 0;
      for (int64_t k = 0; k < inner; ++k) {
        const size_t l = at_a(i, k), r = at_b(k, j);
        sum += a.value[l] * b.value[r];
        magnitude += std::abs(a.value[l] * b.value[r]);
        changed += std::abs(a.value[l]) * b.error[r] + a.error[l] * std::abs(b.value[r]) + a.error[l] * b.error[r];
      }
      const double rounding =
          tolerance(DType::F32, result.dtype(), static_cast<double>(inner) + 4, magnitude + changed);
      const double difference = std::abs(result[static_cast<int64_t>(at)] - sum);
      ASSERT_LE(difference, changed + rounding) << i << ", " << j;
      most = std::max(most, difference / rounding);
    }
  }
  EXPECT_EQ(most > 1, quantised) << "of the bound of roundings";
}

std::vector<double> zeros(int64_t size) { return std::vector<double>(static_cast<size_t>(size), 0.0); }
std::vector<double> numbers(const Operand& x) {
  std::vector<double> values;
  for (int64_t i = 0; i < x.size(); ++i) values.push_back(x[i]);
  return values;
}

class Products : public ::testing::TestWithParam<std::tuple<ProductFormat, LinearProducts::Weight>> {
 protected:
  bool quantised() const { return std::get<0>(GetParam()) == ProductFormat::Fp8; }
  bool out_in() const { return std::get<1>(GetParam()) == LinearProducts::Weight::OutIn; }
  // Of the weight as stored: the element for these.
  size_t weight_at(int64_t out, int64_t in) const {
    return static_cast<size_t>(out_in() ? out * kIn + in : in * kOut + out);
  }
  Matrix matrix(const Operand& x, int64_t columns, DType narrow) const {
    return {x, columns, std::get<0>(GetParam()), narrow};
  }

  LinearProducts products_{std::get<0>(GetParam()), std::get<1>(GetParam()), kTokens, kIn, kOut, DType::BF16};
  Shape weight_shape_ = out_in() ? Shape{kOut, kIn} : Shape{kIn, kOut};
  Operand x_ = Operand::random({kTokens, kIn}, DType::BF16, "x"),
          dy_ = Operand::random({kTokens, kOut}, DType::BF16, "dy", 1e-4);
  Operand w_ = Operand::random(weight_shape_, DType::BF16, "w", 0.02);
};
INSTANTIATE_TEST_SUITE_P(Formats, Products,
                         ::testing::Combine(::testing::Values(ProductFormat::Compute, ProductFormat::Fp8),
                                            ::testing::Values(LinearProducts::Weight::OutIn,
                                                              LinearProducts::Weight::InOut)),
                         [](const auto& at) {
                           return std::string(std::get<0>(at.param) == ProductFormat::Fp8 ? "Fp8" : "Compute") +
                                  (std::get<1>(at.param) == LinearProducts::Weight::OutIn ? "OutIn" : "InOut");
                         });

TEST_P(Products, AreThoseOfALinearLayer) {
  Context context({.threads = 2});
  products_.prepare(context, LinearProducts::Bias::None);
  const Matrix x = matrix(x_, kIn, DType::E4M3), w = matrix(w_, 0, DType::E4M3), dy = matrix(dy_, kOut, DType::E5M2);

  context.resize_workspace(products_.forward_workspace());
  Operand y({kTokens, kOut}, DType::BF16);
  products_.forward(context, x_.tensor(), w_.tensor(), y.tensor());
  expect_product(
      y, zeros(kTokens * kOut), kTokens, kOut, kIn, x, [&](int64_t i, int64_t k) { return x.at(i, k); }, w,
      [&](int64_t k, int64_t j) { return weight_at(j, k); }, quantised());
  EXPECT_EQ(context.workspace().high_water(), products_.forward_workspace());

  context.resize_workspace(products_.input_gradient_workspace());
  Operand dx({kTokens, kIn}, DType::BF16);
  products_.input_gradient(context, dy_.tensor(), w_.tensor(), dx.tensor());
  expect_product(
      dx, zeros(kTokens * kIn), kTokens, kIn, kOut, dy, [&](int64_t i, int64_t k) { return dy.at(i, k); }, w,
      [&](int64_t k, int64_t j) { return weight_at(k, j); }, quantised());
  EXPECT_EQ(context.workspace().high_water(), products_.input_gradient_workspace());

  context.resize_workspace(products_.weight_gradient_workspace());
  Operand dw = Operand::random(weight_shape_, DType::F32, "dw", 1e-4);
  const std::vector<double> before = numbers(dw);
  products_.weight_gradient(context, dy_.tensor(), x_.tensor(), dw.tensor());
  const auto of_dy = [&](int64_t i, int64_t k) { return dy.at(k, i); };
  const auto of_x = [&](int64_t i, int64_t k) { return x.at(k, i); };
  const auto turned = [](const auto& f) { return [&f](int64_t k, int64_t j) { return f(j, k); }; };
  if (out_in())
    expect_product(dw, before, kOut, kIn, kTokens, dy, of_dy, x, turned(of_x), quantised());
  else
    expect_product(dw, before, kIn, kOut, kTokens, x, of_x, dy, turned(of_dy), quantised());
  EXPECT_EQ(context.workspace().high_water(), products_.weight_gradient_workspace());
}

TEST_P(Products, AddABias) {
  Context context({});
  context.resize_workspace(products_.forward_workspace());
  products_.prepare(context, LinearProducts::Bias::Added);
  const Operand bias = Operand::random({kOut}, DType::BF16, "bias");
  Operand y({kTokens, kOut}, DType::BF16);
  products_.forward(context, x_.tensor(), w_.tensor(), y.tensor(), bias.tensor());
  std::vector<double> before;
  for (int64_t i = 0; i < kTokens * kOut; ++i) before.push_back(bias[i % kOut]);
  const Matrix x = matrix(x_, kIn, DType::E4M3), w = matrix(w_, 0, DType::E4M3);
  expect_product(
      y, before, kTokens, kOut, kIn, x, [&](int64_t i, int64_t k) { return x.at(i, k); }, w,
      [&](int64_t k, int64_t j) { return weight_at(j, k); }, quantised());
}

// On a CPU these are the products and GELU, one after the other.
TEST_P(Products, HaveGeluOnOneSide) {
  Context context({});
  context.resize_workspace(std::max(products_.forward_workspace(), products_.input_gradient_workspace()));
  const Operand bias = Operand::random({kOut}, DType::BF16, "bias"),
                in = Operand::random({kTokens, kIn}, DType::BF16, "in");
  Operand before({kTokens, kOut}, DType::BF16), y(before), plain(before), plain_y(before);
  products_.prepare(context, LinearProducts::Bias::Added, LinearProducts::Gelu::OnOutput);
  products_.forward_gelu(context, x_.tensor(), w_.tensor(), before.tensor(), y.tensor(), bias.tensor());
  products_.forward(context, x_.tensor(), w_.tensor(), plain.tensor(), bias.tensor());
  gelu(context, plain.tensor(), plain_y.tensor());
  EXPECT_TRUE(before.bytes() == plain.bytes());
  EXPECT_TRUE(y.bytes() == plain_y.bytes());

  Operand dbefore({kTokens, kIn}, DType::BF16), dx(dbefore);
  products_.prepare(context, LinearProducts::Bias::None, LinearProducts::Gelu::OnInput);
  products_.input_gradient_gelu(context, dy_.tensor(), w_.tensor(), in.tensor(), dbefore.tensor());
  products_.input_gradient(context, dy_.tensor(), w_.tensor(), dx.tensor());
  gelu_backward(context, dx.tensor(), in.tensor(), dx.tensor());
  EXPECT_TRUE(dbefore.bytes() == dx.bytes());
}

Operand magnitudes(Operand x) {
  for (int64_t i = 0; i < x.size(); ++i) x.set(i, std::abs(x[i]));
  return x;
}

// The gradients of a layer in 8 bits are those of the function that it stands for, y = x W^T: along a direction d, sum
// (dx d) is the derivative of L = sum (dy y) within what quantising may change. All numbers are positive, so nothing
// cancels, and that is about (1 + 2^-4) (1 + 2^-3) - 1 = 0.2 of the derivative.
TEST(LinearInFp8, GradientsAreThoseOfTheExactLayer) {
  run_ranks(1, [&](Comm& world) {
    Context context({.threads = 1, .workspace_bytes = 1 << 20});
    ColumnLinear layer(small_shape(Family::Llama, kTokens, DType::BF16), "layer", {kOut, kIn},
                       {.format = ProductFormat::Fp8});
    const Operand x = magnitudes(Operand::random({kTokens, kIn}, DType::BF16, "x"));
    const Operand dy = magnitudes(Operand::random({kTokens, kOut}, DType::BF16, "dy", 1e-4));
    Operand weight = magnitudes(Operand::random({kOut, kIn}, DType::BF16, "w", 0.02)), dx({kTokens, kIn}, DType::BF16);
    Operand dw = Operand::filled({kOut, kIn}, DType::F32, 0);
    layer.weight().value = weight.tensor();
    layer.weight().gradient = dw.tensor();
    const LayerRun run{context, world};
    layer.backward_input(run, dy.tensor(), dx.tensor()).wait();
    layer.backward_weight(run, dy.tensor(), x.tensor());

    const Matrix in(x, kIn, ProductFormat::Fp8, DType::E4M3), w(weight, kIn, ProductFormat::Fp8, DType::E4M3);
    const Matrix out(dy, kOut, ProductFormat::Fp8, DType::E5M2);
    struct Derivative {
      double computed = 0, exact = 0, bound = 0;

      void add(const Matrix& a, size_t i, const Matrix& b, size_t j, double d) {
        exact += a.value[i] * b.value[j] * d;
        bound += (a.value[i] * b.error[j] + a.error[i] * b.value[j] + a.error[i] * b.error[j]) * d;
      }
      void check(DType stored) const {
        const double rounding = tolerance(DType::F32, stored, kTokens + kIn, exact + bound);
        EXPECT_NEAR(computed, exact, bound + rounding);
        EXPECT_GT(std::abs(computed - exact), 0);
        EXPECT_LT(bound, 0.25 * exact) << "the bound says little";
      }
    } of_x, of_w;
    const RandomStream direction(5, "direction");
    for (int64_t i = 0; i < kIn; ++i) {
      for (int64_t t = 0; t < kTokens; ++t) {
        const double d = std::abs(direction.normal(t * kIn + i));
        of_x.computed += dx[t * kIn + i] * d;
        for (int64_t o = 0; o < kOut; ++o) of_x.add(out, out.at(t, o), w, w.at(o, i), d);
      }
      for (int64_t o = 0; o < kOut; ++o) {
        const double d = std::abs(direction.normal((kTokens + o) * kIn + i));
        of_w.computed += dw[o * kIn + i] * d;
        for (int64_t t = 0; t < kTokens; ++t) of_w.add(out, out.at(t, o), in, in.at(t, i), d);
      }
    }
    of_x.check(DType::BF16);
    of_w.check(DType::F32);
  });
}

}  // namespace
}  // namespace tessera::testing
