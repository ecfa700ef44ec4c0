// Packed microbatches of documents with random lengths.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "parallel/batch.h"

namespace tessera::testing {

// Documents of these lengths one after another, from slot 0.
inline std::vector<Segment> packing(const std::vector<int64_t>& lengths) {
  std::vector<Segment> segments;
  int32_t begin = 0;
  for (const int64_t length : lengths) {
    const auto end = static_cast<int32_t>(begin + length);
    segments.push_back({begin, end, static_cast<int32_t>(segments.size()), 0});
    begin = end;
  }
  return segments;
}

// A window filled with documents of log-normal lengths; the last one is cut at its end.
inline std::vector<Segment> log_normal_packing(std::mt19937_64& random, int64_t tokens, double median, double sigma) {
  std::lognormal_distribution<double> draw(std::log(median), sigma);
  std::vector<int64_t> lengths;
  for (int64_t left = tokens; left > 0; left -= lengths.back())
    lengths.push_back(std::min(left, static_cast<int64_t>(std::max(1.0, std::round(draw(random))))));
  return packing(lengths);
}

}  // namespace tessera::testing
