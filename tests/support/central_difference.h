// Gradients against central differences, in double precision.
//
// Two central differences, with steps h and 2h, give Richardson's extrapolation (error of order h^4), and their
// difference bounds its error from above; to that comes the rounding error of the scalar over h.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "tests/support/operand.h"
#include "tests/support/tolerance.h"

namespace tessera::testing {

// A scalar and the sum of the magnitudes of the terms that it was added from, with the number of roundings in a row
// that any of them went through: these bound its rounding error.
struct Scalar {
  double value = 0;
  double magnitude = 0;
  int64_t roundings = 0;
};

inline Scalar operator+(const Scalar& a, const Scalar& b) {
  return {a.value + b.value, a.magnitude + b.magnitude, std::max(a.roundings, b.roundings) + 1};
}

// sum_i a_i b_i: the scalar whose gradient with respect to a is b.
inline Scalar dot(const Operand& a, const Operand& b) {
  Scalar sum;
  for (int64_t i = 0; i < a.size(); ++i) {
    sum.value += a[i] * b[i];
    sum.magnitude += std::abs(a[i] * b[i]);
  }
  sum.roundings = a.size();
  return sum;
}

// sum_i weight_i y_i with fixed random weights: turns a tensor into a scalar whose gradient is the weights. Any y_i
// went through at most `chain` roundings in a row.
struct Probe {
  Probe(const Shape& like, int64_t chain) : values(like.size()), shape(like), roundings(like.size() + chain) {
    const RandomStream random(7, "probe");
    for (size_t i = 0; i < values.size(); ++i) values[i] = random.normal(i);
  }
  Scalar operator()(const ConstTensor& y) const {
    Scalar sum{.roundings = roundings};
    for (size_t i = 0; i < values.size(); ++i) {
      sum.value += values[i] * y.as<double>()[i];
      sum.magnitude += std::abs(values[i] * y.as<double>()[i]);
    }
    return sum;
  }
  ConstTensor gradient() const { return {std::span<const double>(values), shape}; }

  std::vector<double> values;
  Shape shape;
  int64_t roundings;
};

// The slope of a scalar at the middle of a line, and a bound of its error.
struct Slope {
  double value = 0;
  double error = 0;
};

// line(t) is the scalar at distance t from the middle, in units in which it is smooth on a scale of one.
inline Slope slope(const std::function<Scalar(double)>& line) {
  const double h = 0x1p-13;
  double rounding = 0;
  const auto difference = [&](double step) {
    const Scalar above = line(step), below = line(-step);
    // A factor of 8 for the chain of roundings inside each term.
    rounding +=
        gamma(static_cast<double>(above.roundings) + 8, DType::F64) * (above.magnitude + below.magnitude) / step;
    return (above.value - below.value) / (2 * step);
  };
  const double narrow = difference(h), wide = difference(2 * h);
  return {narrow + (narrow - wide) / 3, std::abs(narrow - wide) + rounding};
}

// Checks each element of `gradient` against the change of scalar() when that element of `x` (F64) moves. Elements of x
// should be of order one.
inline void expect_gradient(Operand& x, const Operand& gradient, const std::function<Scalar()>& scalar,
                            const std::string& what) {
  ASSERT_EQ(x.dtype(), DType::F64);
  ASSERT_EQ(x.size(), gradient.size());
  for (int64_t i = 0; i < x.size(); ++i) {
    const double middle = x[i];
    const Slope expected = slope([&](double t) {
      x.set(i, middle + t);
      return scalar();
    });
    x.set(i, middle);
    EXPECT_NEAR(gradient[i], expected.value, expected.error) << what << " element " << i;
  }
}

// The same for tensors of many elements: checks gradient . v against the change of scalar() when x (F64) moves along v,
// for a few random directions v of length one. Each exercises every element.
inline void expect_gradient_along(const Tensor& x, const ConstTensor& gradient, const std::function<Scalar()>& scalar,
                                  const std::string& what, int directions = 3) {
  ASSERT_EQ(x.dtype(), DType::F64);
  ASSERT_EQ(x.size(), gradient.size()) << what;
  const std::vector<double> middle(x.span<double>().begin(), x.span<double>().end());
  std::vector<double> v(middle.size());
  for (int d = 0; d < directions; ++d) {
    const RandomStream random(static_cast<uint64_t>(d), "direction/" + what);
    double squares = 0;
    for (size_t i = 0; i < v.size(); ++i) {
      v[i] = random.normal(i);
      squares += v[i] * v[i];
    }
    double product = 0, magnitude = 0;
    for (size_t i = 0; i < v.size(); ++i) {
      v[i] /= std::sqrt(squares);
      product += gradient.as<double>()[i] * v[i];
      magnitude += std::abs(gradient.as<double>()[i] * v[i]);
    }
    const Slope expected = slope([&](double t) {
      for (size_t i = 0; i < v.size(); ++i) x.as<double>()[i] = middle[i] + t * v[i];
      return scalar();
    });
    std::copy(middle.begin(), middle.end(), x.as<double>());
    EXPECT_NEAR(product, expected.value,
                expected.error + gamma(static_cast<double>(v.size()) + 2, DType::F64) * magnitude)
        << what << ", direction " << d;
  }
}

}  // namespace tessera::testing
