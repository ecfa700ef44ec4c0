#include "scaling/law/gadre.h"

#include <cmath>

namespace tessera {

const std::vector<Constant>& Gadre::constants() const {
  static const std::vector<Constant> kConstants = {{"E", true}, {"a", true}, {"b", true}, {"eta", false}};
  return kConstants;
}

void Gadre::log_terms(const Sample& sample, std::span<const double> p, std::span<double> log_phi,
                      std::span<double> slope) const {
  static const double kLogSix = std::log(6.0);
  const double n = -(kLogSix + 2 * sample.log_parameters), d = -(kLogSix + 2 * sample.log_tokens);
  log_phi[0] = 0;
  log_phi[1] = p[0] * n;
  log_phi[2] = p[0] * d;
  if (slope.empty()) return;
  slope[0] = 0;
  slope[1] = n;
  slope[2] = d;
}

std::vector<std::vector<double>> Gadre::grid() const {
  std::vector<double> eta;
  for (double value = 0.02; value < 0.6; value *= 1.08) eta.push_back(value);
  return {eta};
}

}  // namespace tessera
