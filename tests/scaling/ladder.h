// Runs of a known law: sizes times tokens per parameter, with noise on log loss.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "scaling/fit/form.h"
#include "tensor/context/random.h"

namespace tessera::testing {

struct Ladder {
  int sizes = 10, ratios = 6;  // 60 runs
  double smallest = 1e7, largest = 3e9;
  double fewest = 5, most = 320;  // tokens per parameter
  double noise = 0;               // standard deviation of log loss
  uint64_t seed = 1;
  bool repeated = false;  // every other run saw only an eighth of its tokens, or a thirtieth, as unique ones
};

inline std::vector<Sample> ladder(const Form& form, const Theta& theta, const Ladder& shape) {
  const RandomStream random(shape.seed, "noise of a ladder");
  std::vector<Sample> samples;
  for (int i = 0; i < shape.sizes; ++i) {
    for (int j = 0; j < shape.ratios; ++j) {
      const double n = shape.smallest * std::pow(shape.largest / shape.smallest, i / (shape.sizes - 1.0));
      const double d = n * shape.fewest * std::pow(shape.most / shape.fewest, j / (shape.ratios - 1.0));
      const double unique = !shape.repeated || (i + j) % 2 == 0 ? d : d / (i % 4 < 2 ? 8 : 30);
      const double noise = shape.noise * random.normal(samples.size());
      samples.emplace_back(n, d, form.loss(Sample(n, d, 1, unique), theta) * std::exp(noise), unique);
    }
  }
  return samples;
}

}  // namespace tessera::testing
