#include "data/order/synthetic_source.h"

#include "tensor/check.h"
#include "tensor/context/random.h"

namespace tessera {

SyntheticSource::SyntheticSource(const Options& options) : options_(options) {
  const int64_t microbatches = options.global_batch_size / (options.dp * options.micro_batch_size);
  TESSERA_CHECK_EQ(microbatches * options.dp * options.micro_batch_size, options.global_batch_size,
                   "samples of a step over data-parallel ranks and microbatches");
  for (int64_t m = 0; m < microbatches; ++m) memories_.emplace_back(options.micro_batch_size * options.sequence_length);
  batches_.resize(microbatches);
}

void SyntheticSource::load(int64_t first_sample) {
  const RandomStream random(options_.seed, "synthetic"), begins(options_.seed, "synthetic documents");
  const int64_t length = options_.sequence_length, samples = options_.micro_batch_size, slots = samples * length;
  targets_count_ = 0;
  for (int64_t m = 0; m < microbatches(); ++m) {
    BatchMemory& memory = memories_[m];
    memory.clear();
    const std::span<int32_t> tokens = memory.array(&Batch::tokens), targets = memory.array(&Batch::targets);
    int64_t document_begin = 0;
    int32_t document = 0;
    for (int64_t at = 0; at < slots; ++at) {
      const int64_t sample = first_sample + (m * options_.dp + options_.dp_rank) * samples + at / length;
      const int64_t i = at % length, global = sample * length + i;
      tokens[at] = static_cast<int32_t>(random.below(global, options_.vocab));
      const bool begins_here =
          i == 0 || (options_.mean_document > 0 && begins.below(global, options_.mean_document) == 0);
      if (!begins_here) {
        targets[at - 1] = tokens[at];
      } else if (at > 0) {
        memory.add_document(document_begin, at, document++);
        document_begin = at;
      }
    }
    memory.add_document(document_begin, slots, document);
    targets_count_ += memory.count_targets(0, slots);
    batches_[m] = memory.view();
  }
}

}  // namespace tessera
