#include "scaling/fit/bootstrap.h"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "scaling/fit/minimize.h"
#include "scaling/fit/quantile.h"
#include "tensor/check.h"
#include "tensor/context/random.h"

namespace tessera {
namespace {

using Cells = std::vector<std::vector<size_t>>;  // rows of one N, D, U and variant

Cells cells_of(std::span<const Sample> samples) {
  std::map<std::tuple<double, double, double, size_t>, std::vector<size_t>> found;
  for (size_t i = 0; i < samples.size(); ++i)
    found[{samples[i].parameters, samples[i].tokens, samples[i].unique_tokens, samples[i].variant}].push_back(i);
  Cells cells;
  for (auto& [at, rows] : found) cells.push_back(std::move(rows));
  return cells;
}

// Residuals over sqrt(1 - leverage), centred.
std::vector<double> corrected_errors(const Regression& rows, const Theta& theta) {
  const auto n = static_cast<Eigen::Index>(rows.rows()), p = static_cast<Eigen::Index>(theta.size());
  Eigen::MatrixXd jacobian(n, p);
  std::vector<double> errors(rows.rows()), slope(theta.size());
  for (Eigen::Index i = 0; i < n; ++i) {
    const auto row = static_cast<size_t>(i);
    errors[row] = rows.log_observed[row] - rows.predict(row, theta, slope);
    jacobian.row(i) = Eigen::Map<const Eigen::RowVectorXd>(slope.data(), p);
  }
  const Eigen::ColPivHouseholderQR<Eigen::MatrixXd> qr(jacobian);
  const Eigen::MatrixXd q = Eigen::MatrixXd(qr.householderQ()).leftCols(qr.rank());
  double mean = 0;
  for (Eigen::Index i = 0; i < n; ++i) {
    double& error = errors[static_cast<size_t>(i)];
    // A run that alone decides a constant has no error of its own to show.
    error /= std::sqrt(std::max(1 - q.row(i).squaredNorm(), 1e-3));
    mean += error / static_cast<double>(n);
  }
  for (double& error : errors) error -= mean;
  return errors;
}

// Draws from a pool of numbers with the pool's mean 0 and a given deviation, smoothed.
class Pool {
 public:
  Pool(std::vector<double> values, double deviation) : values_(std::move(values)), deviation_(deviation) {
    double squares = 0;
    for (double value : values_) squares += value * value / static_cast<double>(values_.size());
    for (double& value : values_) value = squares > 0 ? value / std::sqrt(squares) : 0;
    bandwidth_ = 0.9 * std::pow(static_cast<double>(std::max<size_t>(values_.size(), 1)), -0.2);
  }

  double draw(const RandomStream& random, uint64_t& index) const {
    if (values_.empty() || deviation_ == 0) return 0;
    const double drawn = values_[random.below(index++, values_.size())];
    const double value = drawn + bandwidth_ * random.normal(index++);
    return deviation_ * value / std::sqrt(1 + bandwidth_ * bandwidth_);
  }

 private:
  std::vector<double> values_;
  double deviation_, bandwidth_;
};

// What a cell's runs share, and what each has of its own.
struct Errors {
  Pool shared, own;
};

Errors separate(const std::vector<double>& errors, const Cells& cells) {
  std::vector<double> means, within;
  double squares_within = 0, squares_of_means = 0, seeds = 0;
  size_t repeated = 0;
  for (const auto& cell : cells) {
    double mean = 0;
    const auto size = static_cast<double>(cell.size());
    for (size_t row : cell) mean += errors[row] / size;
    means.push_back(mean);
    squares_of_means += mean * mean;
    seeds += 1 / size;
    if (cell.size() < 2) continue;
    repeated += cell.size() - 1;
    for (size_t row : cell) {
      within.push_back((errors[row] - mean) * std::sqrt(size / (size - 1)));
      squares_within += (errors[row] - mean) * (errors[row] - mean);
    }
  }
  const auto count = static_cast<double>(cells.size());
  if (repeated == 0) return {Pool({}, 0), Pool(means, std::sqrt(squares_of_means / count))};
  const double own = squares_within / static_cast<double>(repeated);
  const double shared = std::max(0.0, (squares_of_means - own * seeds) / count);
  return {Pool(means, std::sqrt(shared)), Pool(within, std::sqrt(own))};
}

}  // namespace

Bootstrap bootstrap(const Form& form, std::span<const Sample> samples, const Fit& fit,
                    const BootstrapOptions& options) {
  Regression rows = regression(form, samples, options.fit.delta);
  const Cells cells = cells_of(samples);
  const Errors errors = separate(corrected_errors(rows, fit.theta), cells);
  Bootstrap result;
  result.theta = fit.theta;

  rows.weights.assign(samples.size(), 1.0);
  if (cells.size() > form.size()) {
    for (const auto& cell : cells) {
      for (size_t row : cell) rows.weights[row] = 0;
      result.left_out.push_back(minimize(rows, fit.theta, 2).x);
      for (size_t row : cell) rows.weights[row] = 1;
    }
  }

  rows.weights.clear();
  std::vector<double> fitted(samples.size());
  for (size_t i = 0; i < samples.size(); ++i) fitted[i] = form.log_loss(samples[i], fit.theta, {});
  for (int b = 0; b < options.replicates; ++b) {
    const RandomStream random(options.seed, "bootstrap replicate " + std::to_string(b));
    uint64_t index = 0;
    for (const auto& cell : cells) {
      const double shared = errors.shared.draw(random, index);
      for (size_t row : cell) rows.log_observed[row] = fitted[row] + shared + errors.own.draw(random, index);
    }
    result.replicates.push_back(minimize(rows, fit.theta, 2).x);
    const double shared = errors.shared.draw(random, index);
    result.errors.push_back(shared + errors.own.draw(random, index));
  }
  return result;
}

Estimate Bootstrap::interval(const std::function<double(std::span<const double>)>& quantity, double level) const {
  TESSERA_CHECK(level > 0 && level < 1 && !replicates.empty(), "a level and replicates");
  const double value = quantity(theta);
  std::vector<double> sorted;
  double below = 0;
  for (const Theta& replicate : replicates) {
    sorted.push_back(quantity(replicate));
    below += sorted.back() < value ? 1.0 : sorted.back() == value ? 0.5 : 0.0;
  }
  std::sort(sorted.begin(), sorted.end());
  const double bias = normal_quantile((below + 0.5) / (static_cast<double>(sorted.size()) + 1));

  double mean = 0, squares = 0, cubes = 0;
  std::vector<double> without;
  for (const Theta& each : left_out) without.push_back(quantity(each));
  for (double each : without) mean += each / static_cast<double>(without.size());
  for (double each : without) {
    squares += std::pow(mean - each, 2);
    cubes += std::pow(mean - each, 3);
  }
  const double acceleration = squares > 0 ? cubes / (6 * std::pow(squares, 1.5)) : 0;

  const auto end = [&](double share) {
    const double z = bias + normal_quantile(share);
    return sample_quantile(sorted, normal_below(bias + z / (1 - acceleration * z)));
  };
  return {value, end(0.5 - level / 2), end(0.5 + level / 2)};
}

Estimate Bootstrap::run_interval(const Form& form, const Sample& sample, double level) const {
  Bootstrap with_errors{{form.log_loss(sample, theta, {})}, {}, {}, {}};  // a theta of one number: log loss
  for (size_t b = 0; b < replicates.size(); ++b)
    with_errors.replicates.push_back({form.log_loss(sample, replicates[b], {}) + errors[b]});
  for (const Theta& each : left_out) with_errors.left_out.push_back({form.log_loss(sample, each, {})});
  const Estimate log_loss = with_errors.interval([](std::span<const double> one) { return one[0]; }, level);
  return {std::exp(log_loss.value), std::exp(log_loss.low), std::exp(log_loss.high)};
}

}  // namespace tessera
