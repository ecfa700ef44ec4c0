#include "scaling/law/chinchilla.h"

#include <algorithm>

namespace tessera {

const std::vector<Constant>& Chinchilla::constants() const {
  static const std::vector<Constant> kConstants = {
      {"E", true}, {"A", true}, {"B", true}, {"alpha", false}, {"beta", false}};
  return kConstants;
}

void Chinchilla::log_terms(const Sample& sample, std::span<const double> p, std::span<double> log_phi,
                           std::span<double> slope) const {
  log_phi[0] = 0;
  log_phi[1] = -p[0] * sample.log_parameters;
  log_phi[2] = -p[1] * sample.log_tokens;
  if (slope.empty()) return;
  std::fill(slope.begin(), slope.end(), 0.0);
  slope[1 * 2 + 0] = -sample.log_parameters;
  slope[2 * 2 + 1] = -sample.log_tokens;
}

std::vector<std::vector<double>> Chinchilla::grid() const {
  const std::vector<double> exponents = {0.08, 0.15, 0.22, 0.28, 0.34, 0.4, 0.48, 0.6, 0.8, 1.1};
  return {exponents, exponents};
}

}  // namespace tessera
