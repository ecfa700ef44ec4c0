#include "scaling/fit/projection.h"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>

#include "scaling/fit/minimize.h"
#include "scaling/fit/nnls.h"
#include "tensor/check.h"

namespace tessera {
namespace {

class Projection {
 public:
  Projection(const SeparableForm& form, std::span<const Sample> samples, ProjectionError error)
      : form_(form), samples_(samples), log_phi_(form.terms()), slope_(form.terms() * form.shapes()) {
    for (const Sample& sample : samples) {
      log_weight_.push_back(error == ProjectionError::Relative ? -sample.log_loss : 0.0);
      target_.push_back(error == ProjectionError::Relative ? 1.0 : sample.loss);
    }
    columns_.resize(samples.size() * form.terms());
  }

  const NonNegative& solve(std::span<const double> p) {
    const size_t n = samples_.size();
    for (size_t i = 0; i < n; ++i) {
      form_.log_terms(samples_[i], p, log_phi_, {});
      for (size_t j = 0; j < form_.terms(); ++j) columns_[j * n + i] = std::exp(log_phi_[j] + log_weight_[i]);
    }
    return solved_ = nonnegative_least_squares(columns_, target_);
  }

  double value(std::span<const double> p, std::span<double> gradient) {
    const double value = 0.5 * solve(p).squared_error;
    const Eigen::MatrixXd jacobian = jacobian_at(p);
    Eigen::Map<Eigen::VectorXd>(gradient.data(), jacobian.cols()) = -(jacobian.transpose() * residual());
    return value;
  }

  // Kaufman's: the part of the Jacobian that the factors cannot make up for.
  void curvature(std::span<const double> p, std::span<double> h) {
    solve(p);
    const Eigen::MatrixXd jacobian = jacobian_at(p);
    const Eigen::MatrixXd phi = terms();
    const Eigen::MatrixXd rest = jacobian - phi * phi.colPivHouseholderQr().solve(jacobian);
    Eigen::Map<Eigen::MatrixXd>(h.data(), jacobian.cols(), jacobian.cols()) = rest.transpose() * rest;
  }

 private:
  Eigen::Map<const Eigen::MatrixXd> terms() const {
    return {columns_.data(), static_cast<Eigen::Index>(samples_.size()), static_cast<Eigen::Index>(form_.terms())};
  }

  Eigen::VectorXd residual() const {
    const Eigen::Map<const Eigen::VectorXd> y(target_.data(), static_cast<Eigen::Index>(target_.size()));
    const Eigen::Map<const Eigen::VectorXd> c(solved_.x.data(), static_cast<Eigen::Index>(solved_.x.size()));
    return y - terms() * c;
  }

  Eigen::MatrixXd jacobian_at(std::span<const double> p) {
    const size_t n = samples_.size(), shapes = form_.shapes();
    Eigen::MatrixXd result = Eigen::MatrixXd::Zero(static_cast<Eigen::Index>(n), static_cast<Eigen::Index>(shapes));
    for (size_t i = 0; i < n; ++i) {
      form_.log_terms(samples_[i], p, log_phi_, slope_);
      for (size_t j = 0; j < form_.terms(); ++j)
        for (size_t k = 0; k < shapes; ++k)
          result(static_cast<Eigen::Index>(i), static_cast<Eigen::Index>(k)) +=
              solved_.x[j] * columns_[j * n + i] * slope_[j * shapes + k];
    }
    return result;
  }

  const SeparableForm& form_;
  std::span<const Sample> samples_;
  std::vector<double> log_phi_, slope_, log_weight_, target_, columns_;
  NonNegative solved_;
};

}  // namespace

Fit fit_by_projection(const SeparableForm& form, std::span<const Sample> samples, ProjectionError error,
                      int polished_starts) {
  TESSERA_CHECK(!samples.empty(), "runs to fit");
  Projection projection(form, samples, error);
  const Smooth function{[&](auto p, auto gradient) { return projection.value(p, gradient); },
                        [&](auto p, auto h) { projection.curvature(p, h); }};
  std::vector<Theta> starts = form.starts(samples);
  Fit best;
  best.objective = INFINITY;
  best.starts = static_cast<int>(starts.size());
  for (size_t s = 0; s < std::min(starts.size(), static_cast<size_t>(polished_starts)); ++s) {
    const auto p = std::span(starts[s]).subspan(form.terms());
    const Minimum minimum = minimize(function, p);
    if (!(minimum.value < best.objective)) continue;
    best.objective = minimum.value;
    best.converged = minimum.converged;
    const NonNegative& solved = projection.solve(minimum.x);
    best.theta.clear();
    for (double factor : solved.x) best.theta.push_back(std::log(factor));
    best.theta.insert(best.theta.end(), minimum.x.begin(), minimum.x.end());
  }
  return best;
}

}  // namespace tessera
