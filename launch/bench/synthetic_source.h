// Random tokens in documents of one sample each: what a benchmark trains on, since it needs no data set.
#pragma once

#include <vector>

#include "parallel/source.h"

namespace tessera {

class SyntheticSource : public Source {
 public:
  struct Options {
    int64_t vocab = 0, sequence_length = 0, micro_batch_size = 1, global_batch_size = 1;
    int dp = 1, dp_rank = 0;
    uint64_t seed = 1;
  };
  explicit SyntheticSource(const Options& options);

  // Token i of sample s is a function of (seed, s, i): the same for every layout.
  void load(int64_t first_sample) override;
  int microbatches() const override { return static_cast<int>(batches_.size()); }
  const Batch& batch(int m) const override { return batches_.at(m); }
  int64_t targets() const override;

  // Visible (query, key) pairs of one sample.
  int64_t pairs_of_sample(int64_t window) const;

 private:
  Options options_;
  std::vector<int32_t> tokens_, targets_, position_, document_;
  std::vector<Segment> segments_;
  std::vector<Batch> batches_;
};

}  // namespace tessera
