// What is measured at every step, and at every evaluation.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <string>

#include "parallel/comm/traffic.h"

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
  int64_t attention_pairs = 0;   // (query, key) pairs that saw each other, over all ranks and layers
  int64_t slots = 0;             // token slots of the step, over all ranks: target tokens and others
  double flops = 0;              // model FLOPs of the step, over all ranks
  // Estimates of |G|^2 and tr(Sigma) of a token (optim/gradient_noise.h); NaN at a step that was not measured.
  double gradient_square = std::numeric_limits<double>::quiet_NaN();
  double gradient_noise = std::numeric_limits<double>::quiet_NaN();

  // What each rank has of its own: where its step's time went, in seconds (the parts are measured one by one; host is
  // what is left), and its process's resident memory on the host.
  struct OfRank {
    double compute_seconds = 0, bubble_seconds = 0, data_seconds = 0, optimizer_seconds = 0, host_seconds = 0;
    double communication_seconds = 0;  // of all groups together
    double memory_bytes = 0;
  };
  OfRank own = {};    // of the rank that asks: what rank 0 writes is rank 0's
  OfRank mean = {};   // over the ranks
  OfRank worst = {};  // of each number, the largest that a rank has
  // Of rank 0: calls, bytes and exposed seconds of the step, by group of ranks.
  std::map<std::string, Traffic> traffic = {};
};

struct EvaluationMetrics {
  int64_t step = 0;  // steps done when it was measured
  double validation_loss = 0;
  std::string dataset;
};

}  // namespace tessera
