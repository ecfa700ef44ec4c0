// L(N, D) = E + A / N^alpha + B / D^beta
//
// Hoffmann et al. 2022, "Training Compute-Optimal Large Language Models", approach 3. Theta: log E, log A, log B,
// alpha, beta.
#pragma once

#include "scaling/fit/separable.h"

namespace tessera {

class Chinchilla final : public SeparableForm {
 public:
  Chinchilla() : SeparableForm(3) {}
  std::string_view name() const override { return "chinchilla"; }
  std::string_view formula() const override { return "E + A/N^alpha + B/D^beta"; }
  const std::vector<Constant>& constants() const override;
  void log_terms(const Sample& sample, std::span<const double> p, std::span<double> log_phi,
                 std::span<double> slope) const override;
  std::vector<std::vector<double>> grid() const override;
};

}  // namespace tessera
