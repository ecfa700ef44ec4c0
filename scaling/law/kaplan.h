// L(N, D) = ((N_c / N)^(alpha_N / alpha_D) + D_c / D)^alpha_D
//
// Kaplan et al. 2020, "Scaling Laws for Neural Language Models", equation 1.5 (N without embeddings there). It has no
// irreducible loss. Theta: log N_c, log D_c, log alpha_N, log alpha_D.
#pragma once

#include "scaling/fit/form.h"

namespace tessera {

class Kaplan final : public Form {
 public:
  std::string_view name() const override { return "kaplan"; }
  std::string_view formula() const override { return "((N_c/N)^(alpha_N/alpha_D) + D_c/D)^alpha_D"; }
  const std::vector<Constant>& constants() const override;
  double log_loss(const Sample& sample, std::span<const double> theta, std::span<double> gradient) const override;
  std::vector<Theta> starts(std::span<const Sample> samples) const override;
};

}  // namespace tessera
