#include "scaling/law/coupled.h"

#include <cmath>

#include "scaling/fit/nnls.h"
#include "scaling/fit/starts.h"

namespace tessera {

const std::vector<Constant>& Coupled::constants() const {
  static const std::vector<Constant> kConstants = {{"E", true},      {"A", true},     {"B", true},
                                                   {"alpha", false}, {"beta", false}, {"gamma", true}};
  return kConstants;
}

double Coupled::log_loss(const Sample& sample, std::span<const double> theta, std::span<double> gradient) const {
  const double gamma = std::exp(theta[5]);
  const double u = theta[1] - theta[3] * sample.log_parameters, v = theta[2] - theta[4] * sample.log_tokens;
  const double inner_largest = std::max(u, v);
  const double log_inner = inner_largest + std::log(std::exp(u - inner_largest) + std::exp(v - inner_largest));
  const double reducible = gamma * log_inner;
  const double largest = std::max(theta[0], reducible);
  const double log_sum = largest + std::log(std::exp(theta[0] - largest) + std::exp(reducible - largest));
  if (!gradient.empty()) {
    const double share = std::exp(reducible - log_sum);
    const double share_n = share * gamma * std::exp(u - log_inner), share_d = share * gamma * std::exp(v - log_inner);
    gradient[0] = std::exp(theta[0] - log_sum);
    gradient[1] = share_n;
    gradient[2] = share_d;
    gradient[3] = -share_n * sample.log_parameters;
    gradient[4] = -share_d * sample.log_tokens;
    gradient[5] = share * reducible;
  }
  return log_sum;
}

std::vector<Theta> Coupled::starts(std::span<const Sample> samples) const {
  // Given E and the exponents, (L - E)^(1 / gamma) is linear in A and B.
  const size_t n = samples.size();
  double lowest = INFINITY;
  for (const Sample& sample : samples) lowest = std::min(lowest, sample.loss);
  const std::vector<double> slopes = {0.1, 0.2, 0.3, 0.4, 0.6, 0.9};  // alpha gamma, beta gamma: what N and D alone do
  StartList starts;
  std::vector<double> columns(2 * n), ones(n, 1.0);
  for_each_in_grid({{0.05, 0.4, 0.6, 0.8, 0.92}, {0.3, 0.6, 1.0, 1.6}, slopes, slopes},
                   [&](std::span<const double> point) {
                     const double e = point[0] * lowest, gamma = point[1];
                     const double alpha = point[2] / gamma, beta = point[3] / gamma;
                     double weight = 0;
                     for (size_t i = 0; i < n; ++i) {
                       const double scale = std::log(samples[i].loss - e) / gamma;
                       columns[i] = std::exp(-alpha * (samples[i].log_parameters - samples[0].log_parameters) - scale);
                       columns[n + i] = std::exp(-beta * (samples[i].log_tokens - samples[0].log_tokens) - scale);
                       weight += (samples[i].loss - e) / samples[i].loss / static_cast<double>(n);
                     }
                     const NonNegative solved = nonnegative_least_squares(columns, ones);
                     const double a = std::log(std::max(solved.x[0], kSmallShare));
                     const double b = std::log(std::max(solved.x[1], kSmallShare));
                     // Errors in (L - E)^(1 / gamma) count gamma (L - E) / L times as much in L.
                     starts.add({std::log(e), a + alpha * samples[0].log_parameters, b + beta * samples[0].log_tokens,
                                 alpha, beta, std::log(gamma)},
                                solved.squared_error * std::pow(gamma * weight, 2));
                   });
  return starts.sorted();
}

}  // namespace tessera
