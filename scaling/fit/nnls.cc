#include "scaling/fit/nnls.h"

#include <Eigen/Dense>

#include "tensor/check.h"

namespace tessera {
namespace {

using Matrix = Eigen::MatrixXd;
using Vector = Eigen::VectorXd;

// The unconstrained solution over the columns of `passive`; 0 elsewhere.
Vector solve_passive(const Matrix& a, const Vector& y, const std::vector<bool>& passive) {
  std::vector<Eigen::Index> chosen;
  for (size_t j = 0; j < passive.size(); ++j)
    if (passive[j]) chosen.push_back(static_cast<Eigen::Index>(j));
  Vector x = Vector::Zero(a.cols());
  if (chosen.empty()) return x;
  const Vector part = a(Eigen::all, chosen).colPivHouseholderQr().solve(y);
  for (size_t i = 0; i < chosen.size(); ++i) x[chosen[i]] = part[static_cast<Eigen::Index>(i)];
  return x;
}

}  // namespace

NonNegative nonnegative_least_squares(std::span<const double> columns, std::span<const double> y) {
  TESSERA_CHECK(!y.empty() && columns.size() % y.size() == 0, "columns of equal length");
  const auto rows = static_cast<Eigen::Index>(y.size());
  const auto count = static_cast<Eigen::Index>(columns.size() / y.size());
  Matrix a = Eigen::Map<const Matrix>(columns.data(), rows, count);
  const Vector target = Eigen::Map<const Vector>(y.data(), rows);
  // Columns of one length: terms of a law differ by many orders of magnitude.
  Vector scale = a.colwise().norm();
  for (Eigen::Index j = 0; j < count; ++j) {
    if (!(scale[j] > 0)) scale[j] = 1;
    a.col(j) /= scale[j];
  }
  const double tolerance = 1e-14 * target.norm();

  // Most often all terms are positive, and the first solve is the answer.
  std::vector<bool> passive(static_cast<size_t>(count), true);
  Vector x = solve_passive(a, target, passive);
  if (!((x.array() > 0).all())) {
    passive.assign(static_cast<size_t>(count), false);
    x = Vector::Zero(count);
    for (Eigen::Index round = 0; round < 3 * count; ++round) {
      const Vector pull = a.transpose() * (target - a * x);
      Eigen::Index best = -1;
      for (Eigen::Index j = 0; j < count; ++j)
        if (!passive[static_cast<size_t>(j)] && pull[j] > tolerance && (best < 0 || pull[j] > pull[best])) best = j;
      if (best < 0) break;
      passive[static_cast<size_t>(best)] = true;
      while (true) {
        const Vector z = solve_passive(a, target, passive);
        double step = 1;
        Eigen::Index blocking = -1;
        for (Eigen::Index j = 0; j < count; ++j) {
          if (!passive[static_cast<size_t>(j)] || z[j] > 0) continue;
          const double until = x[j] > 0 ? x[j] / (x[j] - z[j]) : 0;
          if (blocking < 0 || until < step) {
            step = until;
            blocking = j;
          }
        }
        if (blocking < 0) {
          x = z;
          break;
        }
        x += step * (z - x);
        passive[static_cast<size_t>(blocking)] = false;
        x[blocking] = 0;
      }
    }
  }
  NonNegative result;
  result.squared_error = (a * x - target).squaredNorm();
  x = x.cwiseQuotient(scale);
  result.x.assign(x.data(), x.data() + count);
  return result;
}

}  // namespace tessera
