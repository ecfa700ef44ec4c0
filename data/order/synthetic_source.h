// Random tokens in documents of one sample each, or of random lengths: what needs no data set trains on.
#pragma once

#include <cstdint>
#include <vector>

#include "parallel/batch_memory.h"
#include "parallel/source.h"

namespace tessera {

class SyntheticSource : public Source {
 public:
  struct Options {
    int64_t vocab = 0, sequence_length = 0, micro_batch_size = 1, global_batch_size = 1;
    int64_t mean_document = 0;  // tokens; 0: each sample is one document
    int dp = 1, dp_rank = 0;
    uint64_t seed = 1;
  };
  explicit SyntheticSource(const Options& options);

  // Token i of sample s, and whether a document begins there, are functions of (seed, s, i): the same for every layout.
  void load(int64_t first_sample) override;
  int microbatches() const override { return static_cast<int>(batches_.size()); }
  const Batch& batch(int m) const override { return batches_.at(m); }
  int64_t targets() const override { return targets_count_; }

 private:
  Options options_;
  int64_t targets_count_ = 0;
  std::vector<BatchMemory> memories_;  // by microbatch
  std::vector<Batch> batches_;
};

}  // namespace tessera
