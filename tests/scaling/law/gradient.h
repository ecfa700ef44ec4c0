// Analytic gradients against central differences.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace tessera::testing {

// Richardson's extrapolation from steps h and 2h; the difference of the two bounds its error, and rounding of the
// function (some 64 roundings of numbers of its size) over h comes to it.
inline void expect_slopes(const std::function<double(std::span<const double>, std::span<double>)>& function,
                          std::vector<double> at, const std::string& what) {
  std::vector<double> gradient(at.size());
  const double value = function(at, gradient);
  EXPECT_EQ(function(at, {}), value) << what;
  for (size_t k = 0; k < at.size(); ++k) {
    const double here = at[k], h = 0x1p-12;
    const auto difference = [&](double step) {
      at[k] = here + step;
      const double above = function(at, {});
      at[k] = here - step;
      const double below = function(at, {});
      at[k] = here;
      return (above - below) / (2 * step);
    };
    const double narrow = difference(h), wide = difference(2 * h);
    const double rounding = 64 * 0x1p-53 * std::max(1.0, std::abs(value)) * std::max(1.0, std::abs(here)) / h;
    EXPECT_NEAR(gradient[k], narrow + (narrow - wide) / 3, std::abs(narrow - wide) + rounding) << what << " " << k;
  }
}

}  // namespace tessera::testing
