// Repeated data: D tokens of which U are unique, so that data are repeated R_D = D / U - 1 times, and parameters beyond
// U_N, what U unique tokens call for, count as repeated R_N = max(N / U_N - 1, 0) times:
//
//   L = E + A / N'^alpha + B / D'^beta
//   D' = U + U r_D (1 - exp(-R_D / r_D)),   N' = U_N + U_N r_N (1 - exp(-R_N / r_N)),   U_N = min(N, U u)
//
// Muennighoff et al. 2023, "Scaling Data-Constrained Language Models" (R*_D and R*_N there; U_N from Chinchilla's law
// with equal exponents, hence proportional to U: u = 0.051 parameters a token). Without repetition and with N below U u
// it is Chinchilla's law. Theta: log E, log A, log B, alpha, beta, log r_N, log r_D.
#pragma once

#include "scaling/fit/separable.h"

namespace tessera {

class Muennighoff final : public SeparableForm {
 public:
  explicit Muennighoff(double parameters_per_token = 0.051)
      : SeparableForm(3), parameters_per_token_(parameters_per_token) {}
  std::string_view name() const override { return "muennighoff"; }
  std::string_view formula() const override {
    return "E + A/N'^alpha + B/D'^beta, D' = U + U r_D (1 - exp((1 - D/U)/r_D)), N' likewise";
  }
  const std::vector<Constant>& constants() const override;
  void log_terms(const Sample& sample, std::span<const double> p, std::span<double> log_phi,
                 std::span<double> slope) const override;
  std::vector<std::vector<double>> grid() const override;

 private:
  double parameters_per_token_;
};

}  // namespace tessera
