#include "scaling/fit/objective.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "tensor/check.h"

namespace tessera {

double huber(double residual, double delta) {
  const double size = std::abs(residual);
  return size <= delta ? 0.5 * size * size : delta * (size - 0.5 * delta);
}

double Regression::objective(std::span<const double> theta, std::span<double> gradient) const {
  std::array<double, 16> room;
  TESSERA_CHECK(constants <= room.size(), "more constants than there is room for");
  const std::span<double> slope(room.data(), gradient.empty() ? 0 : constants);
  std::fill(gradient.begin(), gradient.end(), 0.0);
  double sum = 0;
  for (size_t i = 0; i < rows(); ++i) {
    const double residual = log_observed[i] - predict(i, theta, slope);
    sum += weight(i) * huber(residual, delta);
    const double pull = weight(i) * std::clamp(residual, -delta, delta);
    for (size_t k = 0; k < slope.size(); ++k) gradient[k] -= pull * slope[k];
  }
  return sum;
}

std::vector<double> Regression::residuals(std::span<const double> theta) const {
  std::vector<double> result(rows());
  for (size_t i = 0; i < rows(); ++i) result[i] = log_observed[i] - predict(i, theta, {});
  return result;
}

Regression regression(const Form& form, std::span<const Sample> samples, double delta) {
  Regression result;
  result.constants = form.size();
  result.predict = [&form, samples](size_t row, std::span<const double> theta, std::span<double> gradient) {
    return form.log_loss(samples[row], theta, gradient);
  };
  for (const Sample& sample : samples) result.log_observed.push_back(sample.log_loss);
  result.delta = delta;
  return result;
}

}  // namespace tessera
