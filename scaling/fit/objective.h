// What a fit minimises, *summed* over runs (a mean would only make minimisers stop earlier):
//
//   F(theta) = sum_i w_i huber(log y_i - log f_i(theta)),   huber(r) = r^2 / 2            for |r| <= delta
//                                                                    = delta (|r| - delta / 2)   beyond
//
// delta = 1e-3 is Hoffmann et al. 2022's; infinity is least squares on log loss.
#pragma once

#include <functional>
#include <limits>
#include <span>
#include <vector>

#include "scaling/fit/form.h"

namespace tessera {

inline constexpr double kHuberDelta = 1e-3;
inline constexpr double kLeastSquares = std::numeric_limits<double>::infinity();

double huber(double residual, double delta);

// Rows that a theta predicts: runs of a form, or points of loss curves.
struct Regression {
  // log f_i(theta); overwrites gradient with its derivative, unless it is empty.
  using Predict = std::function<double(size_t row, std::span<const double> theta, std::span<double> gradient)>;

  size_t constants = 0;
  Predict predict;
  std::vector<double> log_observed;
  std::vector<double> weights;  // empty: all 1
  double delta = kHuberDelta;

  size_t rows() const { return log_observed.size(); }
  double weight(size_t row) const { return weights.empty() ? 1.0 : weights[row]; }

  // F; overwrites gradient [constants] unless it is empty.
  double objective(std::span<const double> theta, std::span<double> gradient) const;
  // log y_i - log f_i.
  std::vector<double> residuals(std::span<const double> theta) const;
};

// `form` and `samples` must outlive it.
Regression regression(const Form& form, std::span<const Sample> samples, double delta = kHuberDelta);

}  // namespace tessera
