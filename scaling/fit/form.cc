#include "scaling/fit/form.h"

#include <cmath>

#include "tensor/check.h"

namespace tessera {

Sample::Sample(double parameters_, double tokens_, double loss_, double unique_tokens_)
    : parameters(parameters_),
      tokens(tokens_),
      loss(loss_),
      unique_tokens(unique_tokens_ > 0 && unique_tokens_ < tokens_ ? unique_tokens_ : tokens_),
      log_parameters(std::log(parameters_)),
      log_tokens(std::log(tokens_)),
      log_loss(std::log(loss_)),
      flops(6 * parameters_ * tokens_) {}

double Form::loss(const Sample& sample, std::span<const double> theta) const {
  return std::exp(log_loss(sample, theta, {}));
}

std::vector<double> Form::values(std::span<const double> theta) const {
  TESSERA_CHECK_EQ(theta.size(), size(), "constants of a law");
  std::vector<double> result(theta.begin(), theta.end());
  for (size_t k = 0; k < result.size(); ++k)
    if (constants()[k].positive) result[k] = std::exp(result[k]);
  return result;
}

Theta Form::theta(std::span<const double> values) const {
  TESSERA_CHECK_EQ(values.size(), size(), "constants of a law");
  Theta result(values.begin(), values.end());
  for (size_t k = 0; k < result.size(); ++k)
    if (constants()[k].positive) result[k] = std::log(result[k]);
  return result;
}

}  // namespace tessera
