#include "optim/adamw.h"

#include <fmt/format.h>

#include <cmath>

#include "optim/optim.pb.h"

namespace tessera {

std::vector<std::string> problems(const OptimizerConfig& c) {
  std::vector<std::string> found;
  const auto require = [&](const char* field, double value, bool holds, const char* rule) {
    if (!holds) found.push_back(fmt::format("optimizer.{} = {}: must be {}", field, value, rule));
  };
  // A comparison with NaN is false, so NaN breaks every rule.
  require("beta1", c.beta1(), c.beta1() >= 0 && c.beta1() < 1, "at least 0 and below 1");
  require("beta2", c.beta2(), c.beta2() >= 0 && c.beta2() < 1, "at least 0 and below 1");
  require("epsilon", c.epsilon(), c.epsilon() > 0 && std::isfinite(c.epsilon()), "finite and above 0");
  require("weight_decay", c.weight_decay(), c.weight_decay() >= 0 && std::isfinite(c.weight_decay()),
          "finite and at least 0");
  require("max_grad_norm", c.max_grad_norm(), c.max_grad_norm() >= 0 && std::isfinite(c.max_grad_norm()),
          "finite and at least 0 (0: no clipping)");
  return found;
}

AdamWStep adamw_step(const OptimizerConfig& config, const Parameter& parameter, double learning_rate,
                     double gradient_scale, int64_t step) {
  const double factor = parameter.learning_rate_factor;
  return {.learning_rate = learning_rate * factor,
          .beta1 = config.beta1(),
          .beta2 = config.beta2(),
          .epsilon = config.epsilon(),
          .weight_decay = parameter.decay ? config.weight_decay() / factor : 0.0,
          .gradient_scale = gradient_scale,
          .step = step};
}

}  // namespace tessera
