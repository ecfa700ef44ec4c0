#include "launch/run/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace tessera {

Sampler::Sampler(const SamplerOptions& options) : options_(options), random_(options.seed, "generate") {
  if (!(options.temperature >= 0) || !std::isfinite(options.temperature)) {
    throw UsageError(
        fmt::format("temperature = {}: it must be 0 (the most likely token) or more", options.temperature));
  }
  if (!(options.top_p > 0 && options.top_p <= 1)) {
    throw UsageError(fmt::format("top-p = {}: it must be above 0 and at most 1", options.top_p));
  }
}

int32_t Sampler::next(std::span<const double> logits, uint64_t index) {
  TESSERA_CHECK(!logits.empty(), "logits to choose from");
  const auto largest = std::max_element(logits.begin(), logits.end());
  if (options_.temperature == 0) return static_cast<int32_t>(largest - logits.begin());
  ranked_.clear();
  double total = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const double weight = std::exp((logits[i] - *largest) / options_.temperature);
    ranked_.emplace_back(weight, static_cast<int32_t>(i));
    total += weight;
  }
  std::sort(ranked_.begin(), ranked_.end(),
            [](const auto& a, const auto& b) { return a.first != b.first ? a.first > b.first : a.second < b.second; });
  double nucleus = 0;
  size_t size = 0;
  while (size < ranked_.size() && nucleus < options_.top_p * total) nucleus += ranked_[size++].first;
  double rest = random_.uniform(index) * nucleus;
  for (size_t i = 0; i < size; ++i) {
    rest -= ranked_[i].first;
    if (rest < 0) return ranked_[i].second;
  }
  return ranked_[size - 1].second;
}

}  // namespace tessera
