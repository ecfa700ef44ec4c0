#include "launch/run/validation.h"

#include <algorithm>

#include "launch/run.pb.h"

namespace tessera {
namespace {

// Tells when a batch is loaded, and passes everything on.
class ToldSource final : public Source {
 public:
  ToldSource(Source& source, std::string name, int64_t batches, ValidationProgress progress)
      : source_(source), name_(std::move(name)), batches_(batches), progress_(std::move(progress)) {}
  void load(int64_t first_sample) override {
    if (progress_) progress_(name_, loaded_++ % batches_, batches_);
    source_.load(first_sample);
  }
  int microbatches() const override { return source_.microbatches(); }
  const Batch& batch(int m) const override { return source_.batch(m); }
  int64_t targets() const override { return source_.targets(); }

 private:
  Source& source_;
  std::string name_;
  int64_t batches_, loaded_ = 0;
  ValidationProgress progress_;
};

}  // namespace

std::vector<ValidationSet> open_validation(const RunConfig& config, Assembly& parts, int64_t samples,
                                           const std::string& fingerprint, const ValidationProgress& progress) {
  std::vector<ValidationSet> sets;
  const int64_t batch = config.data().global_batch_size();
  for (const DataSource& source : config.data().validation()) {
    google::protobuf::RepeatedPtrField<DataSource> only;
    *only.Add() = source;
    std::vector<OpenSource> opened = open_sources(only);
    if (!fingerprint.empty()) check_tokenizer(opened, fingerprint);
    ValidationSet set;
    set.name = opened.front().name;
    set.loader = std::make_unique<Loader>(config.data(), std::move(opened),
                                          LoaderOptions{.seed = config.run().seed(),
                                                        .dp_rank = parts.mesh().coordinate(Axis::Dp),
                                                        .dp_count = parts.mesh().extent(Axis::Dp),
                                                        .order = Order::Sequential,
                                                        .history = {}});
    const int64_t available = set.loader->samples();
    const int64_t wanted = samples == 0 ? available : std::min(samples, available);
    set.batches = (wanted + batch - 1) / batch;
    set.source = std::make_unique<ToldSource>(*set.loader, set.name, set.batches, progress);
    set.pipeline = parts.evaluation(*set.source);
    sets.push_back(std::move(set));
  }
  return sets;
}

EvaluationResult evaluate(Assembly& parts, const RunConfig& config, ValidationSet& set) {
  return set.pipeline->evaluate(parts.context(), 0, set.batches, config.data().global_batch_size());
}

}  // namespace tessera
