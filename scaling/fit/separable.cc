#include "scaling/fit/separable.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "scaling/fit/nnls.h"
#include "scaling/fit/starts.h"
#include "tensor/check.h"

namespace tessera {

double SeparableForm::log_loss(const Sample& sample, std::span<const double> theta, std::span<double> gradient) const {
  std::array<double, kMaxTerms> log_term;
  std::array<double, kMaxTerms * 8> slope;
  const size_t j_count = terms(), k_count = shapes();
  TESSERA_CHECK(j_count <= kMaxTerms && k_count <= 8, "a law with more terms or exponents than there is room for");
  const std::span<double> slopes(slope.data(), gradient.empty() ? 0 : j_count * k_count);
  log_terms(sample, theta.subspan(j_count), std::span(log_term.data(), j_count), slopes);
  double largest = -INFINITY;
  for (size_t j = 0; j < j_count; ++j) largest = std::max(largest, log_term[j] += theta[j]);
  double sum = 0;
  for (size_t j = 0; j < j_count; ++j) sum += log_term[j] = std::exp(log_term[j] - largest);
  if (!gradient.empty()) {
    std::fill(gradient.begin(), gradient.end(), 0.0);
    for (size_t j = 0; j < j_count; ++j) {
      const double share = gradient[j] = log_term[j] / sum;
      for (size_t k = 0; k < k_count; ++k) gradient[j_count + k] += share * slope[j * k_count + k];
    }
  }
  return largest + std::log(sum);
}

std::vector<Theta> SeparableForm::starts(std::span<const Sample> samples) const {
  const size_t n = samples.size(), j_count = terms();
  const auto values = grid();
  StartList starts;
  std::vector<double> columns(n * j_count), ones(n, 1.0), log_phi(j_count), p(shapes());
  for_each_in_grid(values, [&](std::span<const double> point) {
    std::copy(point.begin(), point.end(), p.begin());
    for (size_t i = 0; i < n; ++i) {
      log_terms(samples[i], p, log_phi, {});
      for (size_t j = 0; j < j_count; ++j) columns[j * n + i] = std::exp(log_phi[j] - samples[i].log_loss);
    }
    const NonNegative solved = nonnegative_least_squares(columns, ones);
    Theta theta(j_count);
    for (size_t j = 0; j < j_count; ++j) {
      double mean = 0;
      for (size_t i = 0; i < n; ++i) mean += columns[j * n + i] / static_cast<double>(n);
      theta[j] = std::log(std::max(solved.x[j], kSmallShare / mean));
    }
    theta.insert(theta.end(), p.begin(), p.end());
    starts.add(std::move(theta), solved.squared_error);
  });
  return starts.sorted();
}

}  // namespace tessera
