#include "scaling/law/kaplan.h"

#include <cmath>

#include "scaling/fit/nnls.h"
#include "scaling/fit/starts.h"

namespace tessera {

const std::vector<Constant>& Kaplan::constants() const {
  static const std::vector<Constant> kConstants = {{"N_c", true}, {"D_c", true}, {"alpha_N", true}, {"alpha_D", true}};
  return kConstants;
}

double Kaplan::log_loss(const Sample& sample, std::span<const double> theta, std::span<double> gradient) const {
  const double alpha_n = std::exp(theta[2]), alpha_d = std::exp(theta[3]), ratio = alpha_n / alpha_d;
  const double above = theta[0] - sample.log_parameters;
  const double u = ratio * above, v = theta[1] - sample.log_tokens;
  const double largest = std::max(u, v);
  const double log_sum = largest + std::log(std::exp(u - largest) + std::exp(v - largest));
  if (!gradient.empty()) {
    const double share_n = std::exp(u - log_sum), share_d = std::exp(v - log_sum);
    gradient[0] = alpha_d * share_n * ratio;
    gradient[1] = alpha_d * share_d;
    gradient[2] = alpha_d * share_n * u;
    gradient[3] = alpha_d * (log_sum - share_n * u);
  }
  return alpha_d * log_sum;
}

std::vector<Theta> Kaplan::starts(std::span<const Sample> samples) const {
  // Given both exponents, L^(1 / alpha_D) is linear in N_c^(alpha_N / alpha_D) and D_c.
  const size_t n = samples.size();
  std::vector<double> exponents;
  for (double value = 0.03; value < 0.7; value *= 1.35) exponents.push_back(value);
  StartList starts;
  std::vector<double> columns(2 * n), ones(n, 1.0);
  for_each_in_grid({exponents, exponents}, [&](std::span<const double> point) {
    const double alpha_n = point[0], alpha_d = point[1], ratio = alpha_n / alpha_d;
    // Terms at the first run, so that powers stay in range.
    const double n0 = samples[0].log_parameters, d0 = samples[0].log_tokens, l0 = samples[0].log_loss;
    for (size_t i = 0; i < n; ++i) {
      const double scale = (samples[i].log_loss - l0) / alpha_d;
      columns[i] = std::exp(-ratio * (samples[i].log_parameters - n0) - scale);
      columns[n + i] = std::exp(-(samples[i].log_tokens - d0) - scale);
    }
    const NonNegative solved = nonnegative_least_squares(columns, ones);
    const double log_n = std::log(std::max(solved.x[0], kSmallShare)) + l0 / alpha_d;
    const double log_d = std::log(std::max(solved.x[1], kSmallShare)) + l0 / alpha_d;
    // Errors in L^(1 / alpha_D) count alpha_D times as much in L.
    starts.add({log_n / ratio + n0, log_d + d0, std::log(alpha_n), std::log(alpha_d)},
               solved.squared_error * alpha_d * alpha_d);
  });
  return starts.sorted();
}

}  // namespace tessera
