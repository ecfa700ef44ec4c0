// L(s) = L0 + A S1^-alpha - C S2,   S1 = sum_{i <= s} eta_i
//                                    S2 = sum_{i <= s} sum_{k <= i} (eta_{k-1} - eta_k) lambda^(i-k)
//
// Tissue et al. 2024, "Scaling Law with Learning Rate Annealing". S1 is how far training has come; S2 how far the
// learning rate has been annealed, with a momentum lambda (0.999 in the paper). Changes before the end of warm-up do
// not count. Theta: log L0, log A, log C, alpha.
#pragma once

#include "scaling/law/curve.h"

namespace tessera {

class Tissue final : public CurveLaw {
 public:
  explicit Tissue(std::span<const LossCurve> curves, double lambda = 0.999);
  std::string_view name() const override { return "tissue"; }
  std::string_view formula() const override { return "L0 + A S1^-alpha - C S2"; }
  const std::vector<Constant>& constants() const override;
  std::vector<Theta> starts() const override;

 protected:
  double loss(size_t row, std::span<const double> theta, std::span<double> gradient) const override;

 private:
  std::vector<double> log_s1_, s2_;
};

}  // namespace tessera
