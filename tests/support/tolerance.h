// Error bounds of floating-point results, derived from unit roundoff and norms: the one place where tests get their
// tolerances from.
//
// n roundings in a row grow an error to at most gamma_n = n u / (1 - n u) (Higham, "Accuracy and Stability of Numerical
// Algorithms", 2002, section 3.1). A result that is a sum of terms is off by at most gamma_n times the sum of the
// terms' magnitudes, which is what `magnitude` stands for, and is rounded once more to the dtype it is stored in.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <span>
#include <string>

#include "tensor/dtype.h"

namespace tessera::testing {

inline double gamma(double roundings, DType dtype) {
  const double product = roundings * unit_roundoff(dtype);
  EXPECT_LT(product, 0.5) << "the bound says nothing";
  return product / (1 - product);
}

// Smallest positive number: what an underflow may lose.
inline double smallest(DType dtype) {
  return dtype == DType::F64 ? 0x1p-1074 : dtype == DType::F32 ? 0x1p-149 : 0x1p-133;
}

// Largest difference between a reference computed in double and a result computed in `computed` and stored in `stored`,
// when the longest chain has `roundings` roundings and the terms' magnitudes add up to `magnitude` (at least the
// result's own).
inline double tolerance(DType computed, DType stored, double roundings, double magnitude) {
  const double computing = gamma(roundings, computed) * magnitude;
  const double reference = gamma(roundings, DType::F64) * magnitude;
  const double storing = unit_roundoff(stored) * (magnitude + computing);
  return computing + reference + storing + smallest(stored) + roundings * smallest(computed);
}

// The same for an operation that takes and gives `compute` and adds in its accumulation dtype.
inline double tolerance(DType compute, double roundings, double magnitude) {
  return tolerance(accumulation_dtype(compute), compute, roundings, magnitude);
}

}  // namespace tessera::testing
