#include "scaling/fit/quantile.h"

#include <cmath>
#include <numbers>

#include "tensor/check.h"

namespace tessera {
namespace {

// The x in [low, high] where `below`, which grows, reaches `share`.
template <class Below>
double invert(const Below& below, double share, double low, double high) {
  for (int i = 0; i < 200 && low < high; ++i) {
    const double middle = 0.5 * (low + high);
    if (middle == low || middle == high) break;
    (below(middle) < share ? low : high) = middle;
  }
  return 0.5 * (low + high);
}

// Abramowitz and Stegun 26.7.3 and 26.7.4: a finite sum for whole degrees of freedom.
double student_below(double t, int freedom) {
  const double angle = std::atan(t / std::sqrt(static_cast<double>(freedom)));
  const double cosine = std::cos(angle), squared = cosine * cosine;
  double term = freedom % 2 == 1 ? cosine : 1.0, sum = freedom == 1 ? 0.0 : term;
  for (int j = freedom % 2 == 1 ? 3 : 2; j <= freedom - 2; j += 2) sum += term *= squared * (j - 1) / j;
  const double within =
      freedom % 2 == 1 ? 2 / std::numbers::pi * (angle + std::sin(angle) * sum) : std::sin(angle) * sum;
  return 0.5 + 0.5 * within;
}

}  // namespace

double normal_below(double x) { return 0.5 * std::erfc(-x / std::numbers::sqrt2); }

double normal_quantile(double share) {
  TESSERA_CHECK(share > 0 && share < 1, "a share of a normal distribution");
  return share > 0.5 ? -invert(normal_below, 1 - share, -40, 40) : invert(normal_below, share, -40, 40);
}

double student_quantile(double share, int freedom) {
  TESSERA_CHECK(share > 0 && share < 1 && freedom >= 1, "a share of Student's distribution");
  if (share == 0.5) return 0;
  return invert([&](double t) { return student_below(t, freedom); }, share, -1e6, 1e6);
}

double binomial_below(int k, int n, double probability) {
  double sum = 0;
  for (int i = 0; i <= k; ++i)
    sum += std::exp(std::lgamma(n + 1.0) - std::lgamma(i + 1.0) - std::lgamma(n - i + 1.0) + i * std::log(probability) +
                    (n - i) * std::log1p(-probability));
  return sum;
}

double sample_quantile(std::span<const double> sorted, double share) {
  TESSERA_CHECK(!sorted.empty(), "a sample");
  const double rank = share * (static_cast<double>(sorted.size()) + 1) - 1;
  if (!(rank > 0)) return sorted.front();
  const auto below = static_cast<size_t>(rank);
  if (below + 1 >= sorted.size()) return sorted.back();
  return sorted[below] + (rank - static_cast<double>(below)) * (sorted[below + 1] - sorted[below]);
}

}  // namespace tessera
