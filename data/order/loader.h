// Hands each data-parallel rank its microbatches of a step (parallel/source.h).
//
// Microbatch m of rank d holds the global samples first_sample + (m * dp + d) * micro_batch_size + [0,
// micro_batch_size): a step's samples are the same however they are divided, and which tokens a global sample holds
// depends on nothing but the data, the seed, the data history and its number. The cursor of a run is that number: no
// state is kept here.
//
//   DataHistory history = saved.empty() ? DataHistory() : DataHistory::from_text(saved);
//   std::vector<OpenSource> sources = open_sources(config.train());
//   check_tokenizer(sources, tokenizer.fingerprint());
//   history.change(next_sample, config.sequence_length(), shares(sources, config));
//   Loader loader(config, std::move(sources), {.seed = 1, .dp_rank = d, .dp_count = dp, .history = history});
#pragma once

#include <cstdint>
#include <vector>

#include "data/order/continued_order.h"
#include "data/order/history.h"
#include "data/order/packing.h"
#include "data/shards/token_dataset.h"
#include "parallel/source.h"

namespace tessera {

class DataConfig;  // data.proto

enum class Order {
  Shuffled,    // training: mixture by the history, each source epoch after epoch in keyed permutations, without end
  Sequential,  // validation: the sources one after another, from front to back, then nothing but padding
};

struct LoaderOptions {
  uint64_t seed = 1;
  int dp_rank = 0;
  int dp_count = 1;
  Order order = Order::Shuffled;
  DataHistory history = {};  // Shuffled; empty: the sources' weights from sample 0 on
};

// Microbatches of a step on one rank: global_batch_size / (dp * micro_batch_size). Throws UsageError with the values
// and what would fit when that is not a whole number, or a size is below 1.
int microbatches(const DataConfig& config, int dp_count);

// What the history records of the open sources. Throws DataError: a source with fewer tokens than one sample.
std::vector<SourceShare> shares(const std::vector<OpenSource>& sources, const DataConfig& config);

class Loader final : public Source {
 public:
  // Throws what microbatches() and shares() do; UsageError when there is no source; DataError when the history goes on
  // with a source that is not open. The history's last period has the config's sequence length.
  Loader(const DataConfig& config, std::vector<OpenSource> sources, LoaderOptions options);

  // Throws DataError: a token outside the vocabulary; a sample of a source that is in the history, but not open; one of
  // an earlier period with another sequence length.
  void load(int64_t first_sample) override;
  int microbatches() const override { return static_cast<int>(batches_.size()); }
  const Batch& batch(int m) const override { return batches_.at(m).batch(); }
  int64_t targets() const override;

  const std::vector<OpenSource>& sources() const { return sources_; }
  const DataHistory& history() const { return options_.history; }
  int64_t samples() const { return samples_.back(); }  // one epoch of every source; Sequential: all before the padding

  // Bytes of memory that a loader takes for its microbatches.
  static int64_t bytes(const DataConfig& config, int dp_count);

 private:
  struct Place {
    int source = -1;  // -1: padding
    int64_t sample = 0;
  };
  Place locate(int64_t g) const;
  int64_t global_sample(int64_t first_sample, int m, int64_t i) const;
  void prefetch(int64_t first_sample) const;

  std::vector<OpenSource> sources_;
  LoaderOptions options_;
  int64_t sequence_length_, global_batch_size_, micro_batch_size_;
  Documents documents_;
  static constexpr int kNotOpen = -1, kOtherLength = -2;
  void find_period_sources();

  std::vector<ContinuedOrder> orders_;            // of the sources
  std::vector<int64_t> samples_;                  // [sources + 1]: of the sources before
  std::vector<std::vector<int>> period_sources_;  // the open source of each of a period's, or why there is none
  std::vector<PackedBatch> batches_;
  int64_t prefetched_ = -1;  // first sample of the step that was asked for ahead
};

}  // namespace tessera
