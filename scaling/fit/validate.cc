#include "scaling/fit/validate.h"

#include <fmt/format.h>

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "scaling/fit/minimize.h"
#include "tensor/check.h"
#include "tensor/context/random.h"

namespace tessera {
namespace {

double log_compute(const Sample& sample) { return std::log(6.0) + sample.log_parameters + sample.log_tokens; }

// Fits the rows that are not held and predicts those that are.
void predict_held(const Form& form, std::span<const Sample> samples, const std::vector<bool>& held,
                  const FitOptions& options, HeldOut& result) {
  std::vector<Sample> seen;
  double fitted = -INFINITY, furthest = -INFINITY;
  for (size_t i = 0; i < samples.size(); ++i) {
    if (!held[i]) seen.push_back(samples[i]);
    double& most = held[i] ? furthest : fitted;
    most = std::max(most, log_compute(samples[i]));
  }
  const Fit found = fit(form, seen, options);
  for (size_t i = 0; i < samples.size(); ++i) {
    if (!held[i]) continue;
    result.rows.push_back(i);
    result.errors.push_back(form.log_loss(samples[i], found.theta, {}) - samples[i].log_loss);
  }
  result.compute_ratio = std::max(result.compute_ratio, std::exp(furthest - fitted));
}

void summarise(HeldOut& result) {
  for (double error : result.errors) {
    result.mean_absolute += std::abs(error) / static_cast<double>(result.errors.size());
    result.largest = std::max(result.largest, std::abs(error));
  }
}

}  // namespace

std::vector<std::string> undetermined(const Form& form, std::span<const Sample> samples,
                                      std::span<const double> theta) {
  std::vector<double> slope(form.size()), largest(form.size(), 0.0);
  for (const Sample& sample : samples) {
    form.log_loss(sample, theta, slope);
    for (size_t k = 0; k < slope.size(); ++k) largest[k] = std::max(largest[k], std::abs(slope[k]));
  }
  std::vector<std::string> names;
  for (size_t k = 0; k < largest.size(); ++k)
    if (largest[k] < 1e-12) names.push_back(form.constants()[k].name);
  return names;
}

HeldOut leave_largest_out(const Form& form, std::span<const Sample> samples, double share, const FitOptions& options) {
  std::vector<double> compute;
  for (const Sample& sample : samples) compute.push_back(log_compute(sample));
  std::vector<double> sorted = compute;
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  const auto wanted = std::max<size_t>(1, static_cast<size_t>(share * static_cast<double>(samples.size())));
  TESSERA_CHECK(wanted <= sorted.size(), "a share of the runs");
  const double from = sorted[wanted - 1] - 1e-9;
  std::vector<bool> held;
  for (double each : compute) held.push_back(each >= from);
  HeldOut result;
  predict_held(form, samples, held, options, result);
  summarise(result);
  return result;
}

HeldOut k_fold(const Form& form, std::span<const Sample> samples, int folds, uint64_t seed, const FitOptions& options) {
  TESSERA_CHECK(folds >= 2, "at least two folds");
  std::vector<size_t> order(samples.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const RandomStream random(seed, "folds");
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return random.bits(a) < random.bits(b); });
  HeldOut result;
  for (int fold = 0; fold < folds; ++fold) {
    std::vector<bool> held(samples.size(), false);
    bool any = false;
    for (size_t i = 0; i < order.size(); ++i)
      if (static_cast<int>(i % static_cast<size_t>(folds)) == fold) any = held[order[i]] = true;
    if (any) predict_held(form, samples, held, options, result);
  }
  summarise(result);
  return result;
}

double corrected_akaike(const Form& form, std::span<const Sample> samples, std::span<const double> near) {
  const auto n = static_cast<double>(samples.size()), k = static_cast<double>(form.size()) + 1;
  if (n <= k + 1) return std::numeric_limits<double>::infinity();
  const double squares = 2 * minimize(regression(form, samples, kLeastSquares), near).value;
  return n * std::log(std::max(squares, 1e-300) / n) + 2 * k + 2 * k * (k + 1) / (n - k - 1);
}

std::vector<Influence> influence(const Form& form, std::span<const Sample> samples, std::span<const double> theta,
                                 const Sample& target, const FitOptions& options) {
  Regression rows = regression(form, samples, options.delta);
  const auto n = static_cast<Eigen::Index>(samples.size()), p = static_cast<Eigen::Index>(theta.size());
  Eigen::MatrixXd jacobian(n, p);
  std::vector<double> slope(theta.size());
  for (Eigen::Index i = 0; i < n; ++i) {
    form.log_loss(samples[static_cast<size_t>(i)], theta, slope);
    jacobian.row(i) = Eigen::Map<const Eigen::RowVectorXd>(slope.data(), p);
  }
  const Eigen::ColPivHouseholderQR<Eigen::MatrixXd> qr(jacobian);
  const Eigen::MatrixXd q = Eigen::MatrixXd(qr.householderQ()).leftCols(qr.rank());
  const std::vector<double> residuals = rows.residuals(theta);
  const double at_target = form.log_loss(target, theta, {});
  std::vector<Influence> result;
  rows.weights.assign(samples.size(), 1.0);
  for (size_t i = 0; i < samples.size(); ++i) {
    rows.weights[i] = 0;
    const Minimum without = minimize(rows, theta, 2);
    rows.weights[i] = 1;
    result.push_back({i, residuals[i], q.row(static_cast<Eigen::Index>(i)).squaredNorm(),
                      form.log_loss(target, without.x, {}) - at_target});
  }
  return result;
}

}  // namespace tessera
