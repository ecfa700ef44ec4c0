#include "launch/proof/coordinates.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "data/order/synthetic_source.h"
#include "launch/config/resolve.h"
#include "launch/run.pb.h"
#include "launch/run/assembly.h"
#include "parallel/comm/comm_threads.h"
#include "parallel/pipeline.h"

namespace tessera {
namespace {

constexpr int64_t kLogitRows = 32;

using Values = std::vector<std::vector<double>>;  // by place

class Probe {
 public:
  Probe(Assembly& parts, const Batch& batch) : parts_(parts), batch_(batch) {
    const Shape shape{std::min(kLogitRows, parts.shape().slots), parts.shape().vocab};
    memory_ = Arena("logits", Device::Cpu, Arena::bytes(shape, parts.shape().accumulation()));
    logits_ = memory_.take(shape, parts.shape().accumulation());
  }

  Values look() {
    Transformer& model = parts_.stage(0);
    model.logits(parts_.context(), batch_, 0, logits_);
    Values values;
    for (int block = 0; block <= model.blocks(); ++block) values.push_back(numbers(model.residual(0, block)));
    values.push_back(numbers(logits_));
    return values;
  }

 private:
  static std::vector<double> numbers(const ConstTensor& x) {
    std::vector<double> values(static_cast<size_t>(x.size()));
    dispatch_float(x.dtype(), [&]<class T>(T) {
      for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<double>(x.as<T>()[i]);
    });
    return values;
  }

  Assembly& parts_;
  const Batch& batch_;
  Arena memory_;
  Tensor logits_;
};

// Root mean squares of a - b, or of a when b is empty.
std::vector<double> sizes(const Values& a, const Values& b) {
  std::vector<double> result;
  for (size_t place = 0; place < a.size(); ++place) {
    double sum = 0;
    for (size_t i = 0; i < a[place].size(); ++i) {
      const double x = a[place][i] - (b.empty() ? 0.0 : b[place][i]);
      sum += x * x;
    }
    result.push_back(std::sqrt(sum / static_cast<double>(a[place].size())));
  }
  return result;
}

// [steps + 1][places]
std::vector<std::vector<double>> one_run(const RunConfig& config, const Layout& layout,
                                         const CoordinateOptions& options) {
  std::vector<std::vector<double>> result;
  run_ranks(1, [&](Comm& world) {
    Assembly parts(config, layout, world, options.threads);
    SyntheticSource source({.vocab = parts.shape().vocab,
                            .sequence_length = config.data().sequence_length(),
                            .micro_batch_size = config.data().micro_batch_size(),
                            .global_batch_size = config.data().global_batch_size(),
                            .seed = 1});
    const std::unique_ptr<Pipeline> pipeline = parts.training(source);
    source.load(0);
    Probe probe(parts, source.batch(0));
    const Values start = probe.look();
    result.push_back(sizes(start, {}));
    for (int64_t step = 1; step <= options.steps; ++step) {
      pipeline->step(parts.context(), 0, config.lr_schedule().learning_rate(), step);
      result.push_back(sizes(probe.look(), start));
    }
  });
  return result;
}

}  // namespace

RunConfig at_width(const RunConfig& config, int64_t width) {
  RunConfig wide = config;
  const ModelConfig& from = config.model();
  ModelConfig& model = *wide.mutable_model();
  const auto scaled = [&](int64_t size, const char* what) {
    if (size * width % from.hidden_size() != 0)
      throw UsageError(
          fmt::format("--widths {}: model.{} = {} at model.hidden_size = {} has no whole size there; choose "
                      "multiples of the hidden size",
                      width, what, size, from.hidden_size()));
    return size * width / from.hidden_size();
  };
  const int64_t heads = from.num_attention_heads();
  if (!from.has_head_dim()) model.set_head_dim(from.hidden_size() / heads);
  model.set_num_attention_heads(scaled(heads, "num_attention_heads"));
  if (from.has_num_key_value_heads())
    model.set_num_key_value_heads(scaled(from.num_key_value_heads(), "num_key_value_heads"));
  if (from.has_intermediate_size()) model.set_intermediate_size(scaled(from.intermediate_size(), "intermediate_size"));
  model.set_hidden_size(width);
  return wide;
}

Coordinates check_coordinates(const RunConfig& config, const CoordinateOptions& options) {
  Coordinates found;
  found.widths = options.widths;
  for (const int64_t width : options.widths) {
    std::vector<std::vector<double>> logs;
    for (int seed = 0; seed < options.seeds; ++seed) {
      RunConfig run = at_width(config, width);
      run.clear_parallel();
      run.mutable_run()->set_seed(config.run().seed() + static_cast<uint64_t>(seed));
      run.mutable_run()->set_device(RunSection::CPU);  // whose memory is looked at
      run.mutable_data()->set_global_batch_size(run.data().micro_batch_size());
      const Layout layout = resolve(run, {}, {.world_size = 1, .data = Surroundings::Data::NotNeeded});
      const auto sizes = one_run(run, layout, options);
      logs.resize(sizes.size(), std::vector<double>(sizes.front().size(), 0.0));
      for (size_t t = 0; t < sizes.size(); ++t)
        for (size_t place = 0; place < sizes[t].size(); ++place)
          logs[t][place] += std::log(sizes[t][place]) / options.seeds;
    }
    found.size.resize(logs.size());
    for (size_t t = 0; t < logs.size(); ++t) {
      for (double& value : logs[t]) value = std::exp(value);
      found.size[t].push_back(logs[t]);
    }
  }
  found.places.push_back("embedding");
  for (size_t block = 0; block + 2 < found.size[0][0].size(); ++block)
    found.places.push_back(fmt::format("block {}", block));
  found.places.push_back("logits");
  return found;
}

double Coordinates::slope(size_t place) const {
  const auto n = static_cast<double>(widths.size());
  double x = 0, y = 0, xx = 0, xy = 0;
  for (size_t w = 0; w < widths.size(); ++w) {
    const double at = std::log(static_cast<double>(widths[w])), value = std::log(size.back()[w][place]);
    x += at / n;
    y += value / n;
    xx += at * at / n;
    xy += at * value / n;
  }
  return (xy - x * y) / (xx - x * x);
}

}  // namespace tessera
