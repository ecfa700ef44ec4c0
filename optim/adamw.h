// AdamW's settings (the update itself is tensor/ops/adamw.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "parallel/parameter.h"
#include "tensor/ops/adamw.h"

namespace tessera {

class OptimizerConfig;  // optim/optim.proto

// What is wrong with a config: one message for each broken rule, beginning with the field's path
// ("optimizer.beta1 = 1.5: ...").
std::vector<std::string> problems(const OptimizerConfig& config);

// The settings of one parameter's update: its own learning rate, and weight decay only where parameter.decay. A step
// shrinks weights by learning_rate * weight_decay, whatever the parameter's factor.
AdamWStep adamw_step(const OptimizerConfig& config, const Parameter& parameter, double learning_rate,
                     double gradient_scale, int64_t step);

}  // namespace tessera
