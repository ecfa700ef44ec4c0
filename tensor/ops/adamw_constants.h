// AdamW's constants of one step, computed in double and rounded once. Internal to the kernels of tensor/ops.
#pragma once

#include <cmath>

#include "tensor/ops/adamw.h"

namespace tessera {

template <class A>
struct AdamWConstants {
  explicit AdamWConstants(const AdamWStep& step)
      : scale(static_cast<A>(step.gradient_scale)),
        beta1(static_cast<A>(step.beta1)),
        one_minus_beta1(static_cast<A>(1 - step.beta1)),
        beta2(static_cast<A>(step.beta2)),
        one_minus_beta2(static_cast<A>(1 - step.beta2)),
        decay(static_cast<A>(step.learning_rate * step.weight_decay)),
        step_size(static_cast<A>(step.learning_rate / (1 - std::pow(step.beta1, static_cast<double>(step.step))))),
        root_scale(static_cast<A>(1 / std::sqrt(1 - std::pow(step.beta2, static_cast<double>(step.step))))),
        epsilon(static_cast<A>(step.epsilon)) {}

  A scale, beta1, one_minus_beta1, beta2, one_minus_beta2;
  A decay;       // lr * weight_decay
  A step_size;   // lr / (1 - beta1^t)
  A root_scale;  // 1 / sqrt(1 - beta2^t)
  A epsilon;
};

}  // namespace tessera
