#include "launch/bench/synthetic_source.h"

#include "tensor/check.h"
#include "tensor/ops/attention.h"
#include "tensor/random.h"

namespace tessera {

SyntheticSource::SyntheticSource(const Options& options) : options_(options) {
  const int64_t microbatches = options.global_batch_size / (options.dp * options.micro_batch_size);
  TESSERA_CHECK_EQ(microbatches * options.dp * options.micro_batch_size, options.global_batch_size,
                   "samples of a step over data-parallel ranks and microbatches");
  const int64_t slots = options.micro_batch_size * options.sequence_length;
  tokens_.resize(microbatches * slots);
  targets_.resize(microbatches * slots);
  for (int64_t sample = 0; sample < options.micro_batch_size; ++sample) {
    const auto id = static_cast<int32_t>(sample);
    const auto begin = static_cast<int32_t>(sample * options.sequence_length);
    segments_.push_back({begin, begin + static_cast<int32_t>(options.sequence_length), id, 0});
    for (int32_t i = 0; i < options.sequence_length; ++i) {
      position_.push_back(i);
      document_.push_back(id);
    }
  }
  for (int64_t m = 0; m < microbatches; ++m) {
    batches_.push_back({std::span(tokens_).subspan(m * slots, slots), std::span(targets_).subspan(m * slots, slots),
                        position_, document_, segments_});
  }
}

void SyntheticSource::load(int64_t first_sample) {
  const RandomStream random(options_.seed, "synthetic");
  const int64_t length = options_.sequence_length, samples = options_.micro_batch_size;
  for (int64_t m = 0; m < microbatches(); ++m) {
    for (int64_t s = 0; s < samples; ++s) {
      const int64_t sample = first_sample + (m * options_.dp + options_.dp_rank) * samples + s;
      const int64_t at = (m * samples + s) * length;
      for (int64_t i = 0; i < length; ++i) {
        tokens_[at + i] = static_cast<int32_t>(random.below(sample * length + i, options_.vocab));
      }
      for (int64_t i = 0; i + 1 < length; ++i) targets_[at + i] = tokens_[at + i + 1];
      targets_[at + length - 1] = -1;
    }
  }
}

int64_t SyntheticSource::targets() const {
  return microbatches() * options_.micro_batch_size * (options_.sequence_length - 1);
}

int64_t SyntheticSource::pairs_of_sample(int64_t window) const {
  const auto length = static_cast<size_t>(options_.sequence_length);
  return attention_pairs({std::span(position_).first(length), std::span(document_).first(length)}, window);
}

}  // namespace tessera
