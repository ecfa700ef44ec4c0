// L(N, D) = E + (A / N^alpha + B / D^beta)^gamma
//
// Chinchilla's law (gamma = 1) with one more exponent over both terms, as in Kaplan's law, which it contains too
// (E = 0, beta = 1). Parameters and tokens then stand in for each other to a degree that the data decide. Theta: log E,
// log A, log B, alpha, beta, log gamma.
#pragma once

#include "scaling/fit/form.h"

namespace tessera {

class Coupled final : public Form {
 public:
  std::string_view name() const override { return "coupled"; }
  std::string_view formula() const override { return "E + (A/N^alpha + B/D^beta)^gamma"; }
  const std::vector<Constant>& constants() const override;
  double log_loss(const Sample& sample, std::span<const double> theta, std::span<double> gradient) const override;
  std::vector<Theta> starts(std::span<const Sample> samples) const override;
};

}  // namespace tessera
