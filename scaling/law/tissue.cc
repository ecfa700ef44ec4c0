#include "scaling/law/tissue.h"

#include <cmath>

#include "scaling/fit/nnls.h"
#include "scaling/fit/starts.h"

namespace tessera {

Tissue::Tissue(std::span<const LossCurve> curves, double lambda) : CurveLaw(curves) {
  for (const LossCurve& curve : curves) {
    std::vector<double> s1(curve.learning_rates.size()), s2(curve.learning_rates.size());
    double forward = 0, momentum = 0, annealed = 0;
    for (size_t i = 0; i < curve.learning_rates.size(); ++i) {
      const double eta = curve.learning_rates[i];
      const double drop = i > curve.warmup_steps ? curve.learning_rates[i - 1] - eta : 0;
      momentum = lambda * momentum + drop;
      s1[i] = forward += eta;
      s2[i] = annealed += momentum;
    }
    for (size_t step : curve.steps) {
      log_s1_.push_back(std::log(s1[step - 1]));
      s2_.push_back(s2[step - 1]);
    }
  }
}

const std::vector<Constant>& Tissue::constants() const {
  static const std::vector<Constant> kConstants = {{"L0", true}, {"A", true}, {"C", true}, {"alpha", false}};
  return kConstants;
}

double Tissue::loss(size_t row, std::span<const double> theta, std::span<double> gradient) const {
  const double l0 = std::exp(theta[0]), power = std::exp(theta[1] - theta[3] * log_s1_[row]);
  const double annealed = std::exp(theta[2]) * s2_[row];
  if (!gradient.empty()) {
    gradient[0] = l0;
    gradient[1] = power;
    gradient[2] = -annealed;
    gradient[3] = -power * log_s1_[row];
  }
  return l0 + power - annealed;
}

std::vector<Theta> Tissue::starts() const {
  const size_t n = rows();
  StartList starts;
  std::vector<double> columns(3 * n), ones(n, 1.0);
  for (double alpha = 0.1; alpha < 2; alpha *= 1.25) {
    for (size_t i = 0; i < n; ++i) {
      const double scale = std::exp(-log_observed()[i]);
      columns[i] = scale;
      columns[n + i] = std::exp(-alpha * log_s1_[i]) * scale;
      columns[2 * n + i] = -s2_[i] * scale;
    }
    const NonNegative solved = nonnegative_least_squares(columns, ones);
    Theta theta;
    for (size_t j = 0; j < 3; ++j) {
      double mean = 0;
      for (size_t i = 0; i < n; ++i) mean += std::abs(columns[j * n + i]) / static_cast<double>(n);
      theta.push_back(std::log(std::max(solved.x[j], kSmallShare / std::max(mean, 1e-12))));
    }
    theta.push_back(alpha);
    starts.add(theta, solved.squared_error);
  }
  return starts.sorted();
}

}  // namespace tessera
