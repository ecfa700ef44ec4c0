#include "data/order/synthetic_source.h"

#include "tensor/check.h"
#include "tensor/context/random.h"

namespace tessera {

SyntheticSource::SyntheticSource(const Options& options) : options_(options) {
  const int64_t microbatches = options.global_batch_size / (options.dp * options.micro_batch_size);
  TESSERA_CHECK_EQ(microbatches * options.dp * options.micro_batch_size, options.global_batch_size,
                   "samples of a step over data-parallel ranks and microbatches");
  const int64_t slots = options.micro_batch_size * options.sequence_length;
  for (auto* values : {&tokens_, &targets_, &position_, &document_}) values->resize(microbatches * slots);
  segments_.resize(microbatches);
  for (auto& segments : segments_) segments.reserve(slots);  // a document has at least one token
  batches_.resize(microbatches);
}

void SyntheticSource::load(int64_t first_sample) {
  const RandomStream random(options_.seed, "synthetic"), begins(options_.seed, "synthetic documents");
  const int64_t length = options_.sequence_length, samples = options_.micro_batch_size, slots = samples * length;
  targets_count_ = 0;
  for (int64_t m = 0; m < microbatches(); ++m) {
    std::vector<Segment>& segments = segments_[m];
    segments.clear();
    for (int64_t at = 0; at < slots; ++at) {
      const int64_t sample = first_sample + (m * options_.dp + options_.dp_rank) * samples + at / length;
      const int64_t i = at % length, global = sample * length + i, here = m * slots + at;
      tokens_[here] = static_cast<int32_t>(random.below(global, options_.vocab));
      const bool begin = i == 0 || (options_.mean_document > 0 && begins.below(global, options_.mean_document) == 0);
      if (begin) {
        const auto slot = static_cast<int32_t>(at), id = static_cast<int32_t>(segments.size());
        segments.push_back({slot, slot, id, 0});
      }
      Segment& segment = segments.back();
      position_[here] = segment.end - segment.begin;
      document_[here] = segment.document;
      ++segment.end;
      targets_[here] = -1;
      if (!begin) {
        targets_[here - 1] = tokens_[here];
        ++targets_count_;
      }
    }
    const auto part = [&](const std::vector<int32_t>& values) { return std::span(values).subspan(m * slots, slots); };
    batches_[m] = {part(tokens_), part(targets_), part(position_), part(document_), segments};
  }
}

}  // namespace tessera
