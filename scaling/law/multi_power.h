// L(t) = L0 + A S_1(t)^-alpha + B sum_{k <= t} (eta_k - eta_{k-1}) G(eta_k^-gamma S_k(t)),
//        S_k(t) = sum_{k <= i <= t} eta_i,   G(x) = 1 - (1 + C x)^-beta
//
// Luo et al. 2025, "A Multi-Power Law for Loss Curve Prediction Across Learning Rate Schedules". S_1 holds the warm-up
// too (S_W in the paper), and changes count after it. What lowering the learning rate at k gains grows with the
// learning done since, as a power law that saturates. Theta: log L0, log A, log B, alpha, log C, log beta, gamma.
//
// A row costs as many powers as the learning rate changed before it.
#pragma once

#include "scaling/law/curve.h"

namespace tessera {

class MultiPower final : public CurveLaw {
 public:
  explicit MultiPower(std::span<const LossCurve> curves);
  std::string_view name() const override { return "multi-power"; }
  std::string_view formula() const override {
    return "L0 + A S_1^-alpha + B sum_k (eta_k - eta_{k-1}) (1 - (1 + C eta_k^-gamma S_k)^-beta)";
  }
  const std::vector<Constant>& constants() const override;
  std::vector<Theta> starts() const override;

 protected:
  double loss(size_t row, std::span<const double> theta, std::span<double> gradient) const override;

 private:
  struct Change {
    double by, log_eta, before;  // eta_k - eta_{k-1}; log eta_k; sum of eta_i for i < k
  };
  struct Row {
    double forward;         // S_1
    size_t first, changes;  // in changes_
  };

  // sum_k (eta_k - eta_{k-1}) G, and its slopes in log C, log beta, gamma unless `slope` is empty.
  double annealing(const Row& row, double c, double beta, double gamma, std::span<double> slope) const;

  std::vector<Change> changes_;
  std::vector<Row> rows_of_;
};

}  // namespace tessera
