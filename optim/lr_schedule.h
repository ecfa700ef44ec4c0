// The learning rate as a pure function of the step: nothing to save, nothing to resume.
//
// With peak P = learning_rate, floor M = min_learning_rate, W = warmup_steps, E = decay_end_step, D = decay_steps and a
// step s >= 1:
//
//   s <= W           P s / W, for every kind
//   CONSTANT         P
//   LINEAR           P - (P - M) f,                    f = (s - W) / (E - W)
//   COSINE           M + (P - M) (1 + cos(pi f)) / 2   (Loshchilov and Hutter 2017, one period)
//   WSD              P until E - D, then M + (P - M) shape(f), f = (s - (E - D)) / D   (Hu et al. 2024, MiniCPM)
//                    LINEAR_DECAY 1 - f    COSINE_DECAY (1 + cos(pi f)) / 2    SQRT_DECAY 1 - sqrt(f)   (Hagele et al.
//                    2024)
//   s >= E           M, for every kind but CONSTANT
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tessera {

class LrScheduleConfig;  // optim/optim.proto

// What is wrong with a resolved config (decay_end_step set unless CONSTANT, decay_steps set for WSD): one message for
// each broken rule. Each begins with the field's path ("lr_schedule.warmup_steps = 9: ...").
std::vector<std::string> problems(const LrScheduleConfig& config);

// The learning rate of step `step`, counted from 1. Throws UsageError with all problems of the config.
double learning_rate_at(const LrScheduleConfig& config, int64_t step);

}  // namespace tessera
