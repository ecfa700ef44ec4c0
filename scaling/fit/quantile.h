// Quantiles and distribution functions that intervals need.
#pragma once

#include <span>

namespace tessera {

double normal_below(double x);         // P(Z <= x)
double normal_quantile(double share);  // share in (0, 1)
// t with P(T <= t) = share, for Student's distribution with `freedom` >= 1 degrees.
double student_quantile(double share, int freedom);
// P(X <= k) of a binomial with n trials.
double binomial_below(int k, int n, double probability);

// The `share` quantile of an ascending sample, at rank share (n + 1) - 1, between its neighbours linearly.
double sample_quantile(std::span<const double> sorted, double share);

}  // namespace tessera
