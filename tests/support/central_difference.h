// Gradients against central differences, in double precision.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "tests/support/operand.h"
#include "tests/support/tolerance.h"

namespace tessera::testing {

// A scalar and the sum of the magnitudes of the terms that it was added from (which bounds its rounding error).
struct Scalar {
  double value = 0;
  double magnitude = 0;
  int64_t roundings = 0;
};

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

// Checks each element of `gradient` against the change of scalar() when that element of `x` (F64) moves. Two central
// differences, with steps h and 2h, give Richardson's extrapolation (error of order h^4), and their difference bounds
// its error from above; to that comes the rounding error of scalar() over h. Elements of x should be of order one.
inline void expect_gradient(Operand& x, const Operand& gradient, const std::function<Scalar()>& scalar,
                           const std::string& what) {
  ASSERT_EQ(x.dtype(), DType::F64);
  ASSERT_EQ(x.size(), gradient.size());
  const double h = 0x1p-13;
  for (int64_t i = 0; i < x.size(); ++i) {
    const double at = x[i];
    double rounding = 0;
    const auto difference = [&](double step) {
      x.set(i, at + step);
      const Scalar above = scalar();
      x.set(i, at - step);
      const Scalar below = scalar();
      x.set(i, at);
      // A factor of 8 for the chain of roundings inside each term.
      rounding +=
          gamma(static_cast<double>(above.roundings) + 8, DType::F64) * (above.magnitude + below.magnitude) / step;
      return (above.value - below.value) / (2 * step);
    };
    const double narrow = difference(h), wide = difference(2 * h);
    const double expected = narrow + (narrow - wide) / 3;
    EXPECT_NEAR(gradient[i], expected, std::abs(narrow - wide) + rounding) << what << " element " << i;
  }
}

}  // namespace tessera::testing
