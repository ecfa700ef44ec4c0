// What is measured at every step, and at every evaluation.
#pragma once

#include <cstdint>
#include <string>

namespace tessera {

struct StepMetrics {
  int64_t step = 0;      // steps done, this one included
  int64_t tokens = 0;    // target tokens trained on since the run began, this step included
  double loss = 0;       // mean over the step's target tokens
  double grad_norm = 0;  // global norm before clipping
  double learning_rate = 0;
  double step_seconds = 0;       // wall time of the step
  double tokens_per_second = 0;  // of all ranks together
  double mfu = 0;                // model FLOPs utilisation, 0 to 1
  int64_t memory_bytes = 0;      // resident memory of this rank, or device memory on a GPU
};

struct EvaluationMetrics {
  int64_t step = 0;  // steps done when it was measured
  double validation_loss = 0;
  std::string dataset;
};

}  // namespace tessera
