#include "scaling/law/multi_power.h"

#include <cmath>

#include "scaling/fit/nnls.h"
#include "scaling/fit/starts.h"

namespace tessera {

MultiPower::MultiPower(std::span<const LossCurve> curves) : CurveLaw(curves) {
  for (const LossCurve& curve : curves) {
    const size_t first = changes_.size();
    std::vector<double> forward(curve.learning_rates.size());
    std::vector<size_t> changed(curve.learning_rates.size());
    double sum = 0;
    for (size_t i = 0; i < curve.learning_rates.size(); ++i) {
      const double eta = curve.learning_rates[i];
      // At a learning rate of 0 nothing is learned, so G is 0 until it rises again.
      if (i > curve.warmup_steps && eta != curve.learning_rates[i - 1] && eta > 0)
        changes_.push_back({eta - curve.learning_rates[i - 1], std::log(eta), sum});
      forward[i] = sum += eta;
      changed[i] = changes_.size() - first;
    }
    for (size_t step : curve.steps) rows_of_.push_back({forward[step - 1], first, changed[step - 1]});
  }
}

const std::vector<Constant>& MultiPower::constants() const {
  static const std::vector<Constant> kConstants = {{"L0", true}, {"A", true},    {"B", true},     {"alpha", false},
                                                   {"C", true},  {"beta", true}, {"gamma", false}};
  return kConstants;
}

double MultiPower::annealing(const Row& row, double c, double beta, double gamma, std::span<double> slope) const {
  double sum = 0, in_log_c = 0, in_log_beta = 0, in_gamma = 0;
  for (size_t k = row.first; k < row.first + row.changes; ++k) {
    const Change& change = changes_[k];
    const double x = c * std::exp(-gamma * change.log_eta) * (row.forward - change.before);
    const double log_base = std::log1p(x), left = std::exp(-beta * log_base);
    sum += change.by * (1 - left);
    if (slope.empty()) continue;
    const double in_log_x = change.by * beta * left * x / (1 + x);
    in_log_c += in_log_x;
    in_gamma -= in_log_x * change.log_eta;
    in_log_beta += change.by * left * beta * log_base;
  }
  if (!slope.empty()) {
    slope[0] = in_log_c;
    slope[1] = in_log_beta;
    slope[2] = in_gamma;
  }
  return sum;
}

double MultiPower::loss(size_t row, std::span<const double> theta, std::span<double> gradient) const {
  const Row& at = rows_of_[row];
  const double l0 = std::exp(theta[0]), log_forward = std::log(at.forward);
  const double power = std::exp(theta[1] - theta[3] * log_forward), b = std::exp(theta[2]);
  const std::span<double> slope = gradient.empty() ? gradient : gradient.subspan(4, 3);
  const double annealed = annealing(at, std::exp(theta[4]), std::exp(theta[5]), theta[6], slope);
  if (!gradient.empty()) {
    gradient[0] = l0;
    gradient[1] = power;
    gradient[2] = b * annealed;
    gradient[3] = -power * log_forward;
    for (double& each : slope) each *= b;
  }
  return l0 + power + b * annealed;
}

std::vector<Theta> MultiPower::starts() const {
  const size_t n = rows();
  StartList starts;
  std::vector<double> columns(3 * n), ones(n, 1.0), annealed(n);
  for_each_in_grid({{0.3, 1.0, 4.0, 16.0}, {0.3, 0.6, 1.0}, {0.2, 0.5, 0.8}}, [&](std::span<const double> point) {
    for (size_t i = 0; i < n; ++i) annealed[i] = annealing(rows_of_[i], point[0], point[1], point[2], {});
    for (double alpha : {0.2, 0.35, 0.5, 0.7, 1.0}) {
      for (size_t i = 0; i < n; ++i) {
        const double scale = std::exp(-log_observed()[i]);
        columns[i] = scale;
        columns[n + i] = std::pow(rows_of_[i].forward, -alpha) * scale;
        columns[2 * n + i] = annealed[i] * scale;
      }
      const NonNegative solved = nonnegative_least_squares(columns, ones);
      Theta theta;
      for (size_t j = 0; j < 3; ++j) {
        double mean = 0;
        for (size_t i = 0; i < n; ++i) mean += std::abs(columns[j * n + i]) / static_cast<double>(n);
        theta.push_back(std::log(std::max(solved.x[j], kSmallShare / std::max(mean, 1e-12))));
      }
      theta.insert(theta.end(), {alpha, std::log(point[0]), std::log(point[1]), point[2]});
      starts.add(theta, solved.squared_error);
    }
  });
  return starts.sorted();
}

}  // namespace tessera
