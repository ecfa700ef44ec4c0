#include "scaling/law/power_law.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <Eigen/Dense>
#include <cmath>
#include <limits>

#include "scaling/fit/quantile.h"
#include "tensor/check.h"

namespace tessera {

PowerLaw::PowerLaw(std::vector<std::string> names, const std::vector<std::vector<double>>& rows,
                   const std::vector<double>& y)
    : names_(std::move(names)) {
  const auto n = static_cast<Eigen::Index>(y.size()), k = static_cast<Eigen::Index>(names_.size());
  TESSERA_CHECK_EQ(rows.size(), y.size(), "observations of a power law");
  if (n < k + 1)
    throw DataError(fmt::format("{} observations: a power law in {} has {} constants and needs at least as many", n,
                                fmt::join(names_, " and "), k + 1));
  Eigen::MatrixXd x(n, k + 1);
  Eigen::VectorXd target(n);
  for (Eigen::Index i = 0; i < n; ++i) {
    const auto& row = rows[static_cast<size_t>(i)];
    TESSERA_CHECK_EQ(row.size(), names_.size(), "variables of a power law");
    x(i, 0) = 1;
    for (Eigen::Index j = 0; j < k; ++j) {
      const double value = row[static_cast<size_t>(j)];
      if (!(value > 0 && std::isfinite(value)))
        throw DataError(
            fmt::format("observation {}: {} = {} is not a positive number", i, names_[static_cast<size_t>(j)], value));
      x(i, j + 1) = std::log(value);
    }
    const double value = y[static_cast<size_t>(i)];
    if (!(value > 0 && std::isfinite(value)))
      throw DataError(fmt::format("observation {}: {} is not a positive number", i, value));
    target[i] = std::log(value);
  }
  // About the means, so that rank is judged by how far the variables move and not by their size.
  const Eigen::RowVectorXd means = x.rightCols(k).colwise().mean();
  Eigen::MatrixXd centred = x;
  centred.rightCols(k).rowwise() -= means;
  Eigen::ColPivHouseholderQR<Eigen::MatrixXd> qr(centred);
  qr.setThreshold(1e-6);
  if (qr.rank() < k + 1)
    throw DataError(
        fmt::format("{} do not vary independently over the {} observations: their exponents cannot be told "
                    "apart; a power law in one of them can be fitted",
                    fmt::join(names_, " and "), n));
  Eigen::MatrixXd back = Eigen::MatrixXd::Identity(k + 1, k + 1);  // constants about the means -> about zero
  back.row(0).tail(k) = -means;
  const Eigen::VectorXd solved = back * qr.solve(target);
  const Eigen::MatrixXd inverse = (centred.transpose() * centred).ldlt().solve(Eigen::MatrixXd::Identity(k + 1, k + 1));
  const Eigen::MatrixXd covariance = back * inverse * back.transpose();
  beta_.assign(solved.data(), solved.data() + k + 1);
  covariance_.assign(covariance.data(), covariance.data() + covariance.size());
  freedom_ = static_cast<int>(n - k - 1);
  if (freedom_ > 0) deviation_ = std::sqrt((target - x * solved).squaredNorm() / freedom_);
}

Estimate PowerLaw::estimate(const std::vector<double>& direction, double level, double extra_variance) const {
  const size_t n = beta_.size();
  double value = 0, variance = extra_variance;
  for (size_t i = 0; i < n; ++i) {
    value += direction[i] * beta_[i];
    for (size_t j = 0; j < n; ++j) variance += direction[i] * covariance_[i * n + j] * direction[j];
  }
  if (freedom_ == 0) {
    const double infinite = std::numeric_limits<double>::infinity();
    return {value, -infinite, infinite};
  }
  const double reach = student_quantile(0.5 + level / 2, freedom_) * deviation_ * std::sqrt(variance);
  return {value, value - reach, value + reach};
}

namespace {

Estimate exponential(const Estimate& logarithm) {
  return {std::exp(logarithm.value), std::exp(logarithm.low), std::exp(logarithm.high)};
}

std::vector<double> direction_of(const std::vector<double>& x) {
  std::vector<double> direction = {1};
  for (double value : x) direction.push_back(std::log(value));
  return direction;
}

}  // namespace

Estimate PowerLaw::factor(double level) const {
  std::vector<double> direction(beta_.size(), 0.0);
  direction[0] = 1;
  return exponential(estimate(direction, level, 0));
}

Estimate PowerLaw::exponent(size_t k, double level) const {
  std::vector<double> direction(beta_.size(), 0.0);
  direction.at(k + 1) = 1;
  return estimate(direction, level, 0);
}

Estimate PowerLaw::mean_at(const std::vector<double>& x, double level) const {
  return exponential(estimate(direction_of(x), level, 0));
}

Estimate PowerLaw::observation_at(const std::vector<double>& x, double level) const {
  return exponential(estimate(direction_of(x), level, 1));
}

}  // namespace tessera
