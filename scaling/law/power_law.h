// y = c x_1^p_1 ... x_k^p_k by least squares on logarithms, with the exact intervals of linear regression. These are
// the laws of optimal settings:
//
//   learning rate   eta = c N^p D^q       (Bjorck et al. 2024: N^-0.23 D^-0.32)
//   batch           B = c N^p D^q         (Zhang et al. 2024: B* grows with D alone, by about D^0.47)
//   critical batch  B_crit = c L^p        (Kaplan et al. 2020: 2e8 tokens L^(-1 / 0.21))
//   isoFLOP optimum N = c C^p             (Hoffmann et al. 2022, approach 2)
#pragma once

#include <string>
#include <vector>

#include "scaling/fit/estimate.h"

namespace tessera {

class PowerLaw {
 public:
  // rows[i] are x_1.. of observation i. `names` are those of x. Throws DataError when there are fewer observations than
  // constants, when a number is not positive, and when the exponents cannot be told apart (collinear: which, and what
  // can be fitted).
  PowerLaw(std::vector<std::string> names, const std::vector<std::vector<double>>& rows, const std::vector<double>& y);

  const std::vector<std::string>& names() const { return names_; }
  // Without degrees of freedom left (as many observations as constants) the intervals are infinite.
  Estimate factor(double level) const;                                        // c
  Estimate exponent(size_t k, double level) const;                            // p_k
  Estimate mean_at(const std::vector<double>& x, double level) const;         // of the law itself
  Estimate observation_at(const std::vector<double>& x, double level) const;  // of one more measurement
  double deviation() const { return deviation_; }  // standard deviation of log y about the law

 private:
  Estimate estimate(const std::vector<double>& direction, double level, double extra_variance) const;

  std::vector<std::string> names_;
  std::vector<double> beta_;        // log c, p_1, ...
  std::vector<double> covariance_;  // [k + 1, k + 1], of unit variance
  int freedom_ = 0;
  double deviation_ = 0;
};

}  // namespace tessera
