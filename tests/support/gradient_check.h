// Gradient checks by directional derivatives, in F64.
//
// For a scalar function f of some tensor x with analytic gradient g and a random direction v:
//   g . v  against  (f(x + h v) - f(x - h v)) / 2h
// One direction exercises every element of g. The allowed error is the truncation error of the central difference (h^2
// times a third derivative of the order of f itself) plus the rounding of f over h.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "tensor/random.h"
#include "tensor/tensor.h"

namespace tessera::testing {

inline void check_gradient(const std::string& what, const Tensor& x, const ConstTensor& gradient,
                           const std::function<double()>& f, int directions = 3) {
  ASSERT_EQ(x.size(), gradient.size()) << what;
  const std::vector<double> start(x.span<double>().begin(), x.span<double>().end());
  const double* g = gradient.as<double>();
  constexpr double h = 1e-5;
  for (int d = 0; d < directions; ++d) {
    const RandomStream random(static_cast<uint64_t>(d), "direction/" + what);
    double analytic = 0, scale = 0;
    for (int64_t i = 0; i < x.size(); ++i) {
      analytic += g[i] * random.normal(i);
      scale += std::abs(g[i]);
    }
    const auto at = [&](double step) {
      for (int64_t i = 0; i < x.size(); ++i) x.as<double>()[i] = start[i] + step * random.normal(i);
      return f();
    };
    const double above = at(h), below = at(-h);
    std::copy(start.begin(), start.end(), x.as<double>());
    const double numeric = (above - below) / (2 * h);
    const double rounding = (std::abs(above) + std::abs(below)) * 1e-15 / h;
    const double truncation = h * h * (1 + scale) * 100;
    EXPECT_NEAR(numeric, analytic, rounding + truncation) << what << ", direction " << d;
    EXPECT_TRUE(std::isfinite(analytic)) << what;
  }
}

// sum_i weight_i y_i with fixed random weights: turns a tensor into a scalar whose gradient is the weights.
struct Probe {
  explicit Probe(const Shape& like) : values(like.size()), shape(like) {
    const RandomStream random(7, "probe");
    for (size_t i = 0; i < values.size(); ++i) values[i] = random.normal(i);
  }
  double operator()(const ConstTensor& y) const {
    double sum = 0;
    for (size_t i = 0; i < values.size(); ++i) sum += values[i] * y.as<double>()[i];
    return sum;
  }
  ConstTensor gradient() const { return {std::span<const double>(values), shape}; }

  std::vector<double> values;
  Shape shape;
};

}  // namespace tessera::testing
