// Over-training: runs with M = D / N tokens per parameter and C = 6 N D,
//
//   L(C, M) = E + (a M^eta + b M^-eta) C^-eta  =  E + a 6^-eta N^(-2 eta) + b 6^-eta D^(-2 eta)
//
// Gadre et al. 2024, "Language models scale reliably with over-training and on downstream tasks". It is Chinchilla's
// law with equal exponents, so that the loss at every fixed M falls with C by the same power. Theta: log E, log a, log
// b, eta.
#pragma once

#include "scaling/fit/separable.h"

namespace tessera {

class Gadre final : public SeparableForm {
 public:
  Gadre() : SeparableForm(3) {}
  std::string_view name() const override { return "gadre"; }
  std::string_view formula() const override { return "E + (a M^eta + b M^-eta) C^-eta, M = D/N, C = 6ND"; }
  const std::vector<Constant>& constants() const override;
  void log_terms(const Sample& sample, std::span<const double> p, std::span<double> log_phi,
                 std::span<double> slope) const override;
  std::vector<std::vector<double>> grid() const override;
};

}  // namespace tessera
