// Choosing the next token: temperature, then top-p (Holtzman, Buys, Du, Forbes and Choi 2020, nucleus sampling).
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "tensor/context/random.h"

namespace tessera {

struct SamplerOptions {
  double temperature = 0.8;  // 0: the most likely token
  double top_p = 0.95;       // the smallest set of tokens that has this probability; 1: all
  uint64_t seed = 1;
};

class Sampler {
 public:
  // Throws UsageError when temperature < 0 or top_p is not in (0, 1].
  explicit Sampler(const SamplerOptions& options);

  // The token number `index` of a text: a function of (logits, seed, index).
  int32_t next(std::span<const double> logits, uint64_t index);

 private:
  SamplerOptions options_;
  RandomStream random_;
  std::vector<std::pair<double, int32_t>> ranked_;  // probability and token, most likely first
};

}  // namespace tessera
