#include "scaling/law/muennighoff.h"

#include <algorithm>
#include <cmath>

namespace tessera {
namespace {

// log of u (1 + r (1 - exp(-repeats / r))), and its slope in log r.
struct Effective {
  double log_value, slope;
};

Effective effective(double unique, double repeats, double log_r) {
  const double r = std::exp(log_r), x = repeats / r;
  const double gained = -std::expm1(-x);
  const double total = 1 + r * gained;
  return {std::log(unique * total), r * (gained - x * std::exp(-x)) / total};
}

}  // namespace

const std::vector<Constant>& Muennighoff::constants() const {
  static const std::vector<Constant> kConstants = {{"E", true},     {"A", true},   {"B", true},  {"alpha", false},
                                                   {"beta", false}, {"r_N", true}, {"r_D", true}};
  return kConstants;
}

void Muennighoff::log_terms(const Sample& sample, std::span<const double> p, std::span<double> log_phi,
                            std::span<double> slope) const {
  const double unique_n = std::min(sample.parameters, sample.unique_tokens * parameters_per_token_);
  const Effective n = effective(unique_n, sample.parameters / unique_n - 1, p[2]);
  const Effective d = effective(sample.unique_tokens, sample.tokens / sample.unique_tokens - 1, p[3]);
  log_phi[0] = 0;
  log_phi[1] = -p[0] * n.log_value;
  log_phi[2] = -p[1] * d.log_value;
  if (slope.empty()) return;
  std::fill(slope.begin(), slope.end(), 0.0);
  slope[1 * 4 + 0] = -n.log_value;
  slope[1 * 4 + 2] = -p[0] * n.slope;
  slope[2 * 4 + 1] = -d.log_value;
  slope[2 * 4 + 3] = -p[1] * d.slope;
}

std::vector<std::vector<double>> Muennighoff::grid() const {
  const std::vector<double> exponents = {0.15, 0.25, 0.35, 0.5, 0.7};
  const std::vector<double> repeats = {std::log(2.0), std::log(6.0), std::log(20.0)};
  return {exponents, exponents, repeats, repeats};
}

}  // namespace tessera
