// Non-negative least squares for a few columns: Lawson and Hanson 1974, "Solving Least Squares Problems", chapter 23.
#pragma once

#include <span>
#include <vector>

namespace tessera {

struct NonNegative {
  std::vector<double> x;
  double squared_error = 0;
};

// The x >= 0 that minimises |A x - y|^2. `columns` holds A column after column, [columns, rows], rows = y.size().
NonNegative nonnegative_least_squares(std::span<const double> columns, std::span<const double> y);

}  // namespace tessera
