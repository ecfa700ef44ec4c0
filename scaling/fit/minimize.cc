#include "scaling/fit/minimize.h"

#include <lbfgs.h>

#include <Eigen/Dense>
#include <algorithm>
#include <array>
#include <cmath>
#include <memory>

#include "tensor/check.h"

namespace tessera {
namespace {

using Matrix = Eigen::MatrixXd;
using Vector = Eigen::VectorXd;

// One run of L-BFGS in u, where x = origin + to_x u.
struct Search {
  const Smooth& function;
  Vector origin;
  Matrix to_x;
  Vector x, gradient;  // of the last evaluation
  Vector best;
  double best_value = INFINITY;
  int evaluations = 0;

  double at(const double* u, double* gradient_u) {
    const auto n = origin.size();
    x = origin + to_x * Eigen::Map<const Vector>(u, n);
    const double value =
        function.value(std::span(x.data(), static_cast<size_t>(n)), std::span(gradient.data(), static_cast<size_t>(n)));
    Eigen::Map<Vector>(gradient_u, n) = to_x.transpose() * gradient;
    ++evaluations;
    if (value < best_value) {
      best_value = value;
      best = x;
    }
    return value;
  }
};

// Coordinates in which h is the identity, with directions that h does not see kept short.
Matrix whitening(const Matrix& h) {
  const auto n = h.rows();
  const double ridge = 1e-14 * std::max(h.trace(), 1e-280);
  const Matrix padded = h + ridge * Matrix::Identity(n, n);
  const Eigen::LLT<Matrix> factor(padded);
  if (factor.info() != Eigen::Success || !padded.allFinite()) return Matrix::Identity(n, n);
  return factor.matrixU().solve(Matrix::Identity(n, n));
}

}  // namespace

Minimum minimize(const Smooth& function, std::span<const double> start, int rounds) {
  const auto n = static_cast<Eigen::Index>(start.size());
  Minimum minimum;
  minimum.x.assign(start.begin(), start.end());
  lbfgs_parameter_t options;
  lbfgs_parameter_init(&options);
  options.m = 8;
  options.epsilon = 1e-14;  // |gradient| over max(1, |u|), in coordinates where a step has the size of the gradient
  options.past = 6;
  options.delta = 1e-15;  // stop when six steps gained less than this share of the value
  options.max_iterations = 300;
  options.max_linesearch = 30;
  std::unique_ptr<lbfgsfloatval_t, decltype(&lbfgs_free)> u(lbfgs_malloc(static_cast<int>(n)), &lbfgs_free);
  Matrix h(n, n);
  double before = INFINITY;
  for (int round = 0; round < rounds; ++round) {
    function.curvature(minimum.x, std::span(h.data(), static_cast<size_t>(n * n)));
    Search search{function, Eigen::Map<const Vector>(minimum.x.data(), n), whitening(h), Vector(n), Vector(n), {}};
    search.best = search.origin;
    std::fill(u.get(), u.get() + n, 0.0);
    const int status = lbfgs(
        static_cast<int>(n), u.get(), nullptr,
        [](void* object, const double* at, double* gradient, int, double) {
          return static_cast<Search*>(object)->at(at, gradient);
        },
        nullptr, &search, &options);
    minimum.evaluations += search.evaluations;
    std::copy(search.best.data(), search.best.data() + n, minimum.x.begin());
    minimum.value = search.best_value;
    minimum.converged = status >= 0 || status == LBFGSERR_ROUNDING_ERROR || status == LBFGSERR_WIDTHTOOSMALL ||
                        status == LBFGSERR_MINIMUMSTEP || status == LBFGSERR_MAXIMUMLINESEARCH;
    if (!(before - minimum.value > 1e-13 * std::abs(minimum.value))) break;
    before = minimum.value;
  }
  return minimum;
}

void curvature(const Regression& regression, std::span<const double> theta, std::span<double> h) {
  std::array<double, 16> room;
  const size_t n = regression.constants;
  TESSERA_CHECK(n <= room.size() && h.size() == n * n, "constants of a law");
  const std::span<double> slope(room.data(), n);
  std::fill(h.begin(), h.end(), 0.0);
  for (size_t i = 0; i < regression.rows(); ++i) {
    const double residual = std::abs(regression.log_observed[i] - regression.predict(i, theta, slope));
    const double weight = regression.weight(i) * (residual <= regression.delta ? 1.0 : regression.delta / residual);
    for (size_t a = 0; a < n; ++a)
      for (size_t b = 0; b < n; ++b) h[a * n + b] += weight * slope[a] * slope[b];
  }
}

Minimum minimize(const Regression& regression, std::span<const double> start, int rounds) {
  return minimize({[&](auto x, auto gradient) { return regression.objective(x, gradient); },
                   [&](auto x, auto h) { curvature(regression, x, h); }},
                  start, rounds);
}

}  // namespace tessera
