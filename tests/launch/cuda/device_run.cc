#include "tests/launch/cuda/device_run.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "data/order/synthetic_source.h"
#include "launch/config/resolve.h"
#include "launch/config/run_layout.h"
#include "launch/run.pb.h"
#include "launch/run/assembly.h"
#include "parallel/comm/comm_threads.h"
#include "tensor/context/copy.h"

namespace tessera::testing_device {

RunConfig small_config(ModelConfig::Family family, RunSection::ComputeDtype dtype) {
  RunConfig config;
  config.mutable_run()->set_compute_dtype(dtype);
  config.mutable_run()->set_device(RunSection::CUDA);
  ModelConfig& model = *config.mutable_model();
  model.set_family(family);
  model.set_hidden_size(32);
  model.set_num_hidden_layers(2);
  model.set_num_attention_heads(4);
  model.set_num_key_value_heads(2);
  model.set_head_dim(8);
  model.set_intermediate_size(32);
  model.set_vocab_size(61);
  model.set_max_position_embeddings(kSequence);
  model.set_tie_word_embeddings(family == ModelConfig::GPT2);
  model.set_initializer_range(0.1);
  config.mutable_data()->set_sequence_length(kSequence);
  config.mutable_data()->set_global_batch_size(kGlobalBatch);
  config.mutable_data()->set_micro_batch_size(1);
  config.mutable_optimizer()->set_max_grad_norm(1.0);
  return config;
}

std::vector<double> on_host(const Context& context, const ConstTensor& x) {
  Buffer memory(Device::Cpu, std::max<int64_t>(1, x.bytes()));
  const Tensor host(memory.data(), x.shape(), x.dtype());
  copy(context, x, host);
  std::vector<double> values(x.size());
  dispatch_float(x.dtype(), [&]<class T>(T) {
    for (int64_t i = 0; i < x.size(); ++i) values[i] = static_cast<double>(host.as<T>()[i]);
  });
  return values;
}

double distance(const std::vector<double>& a, const std::vector<double>& b) {
  double difference = 0, size = 0;
  EXPECT_EQ(a.size(), b.size());
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    size += b[i] * b[i];
  }
  return std::sqrt(difference / std::max(size, 1e-300));
}

Curve train(RunConfig config, int ranks, DeviceTransport transport, DeviceSums sums, Samples samples) {
  Surroundings surroundings{
      .world_size = ranks, .data = Surroundings::Data::NotNeeded, .cuda = Surroundings::Cuda::Present};
  resolve(config, {}, surroundings);
  const int64_t batch = config.data().global_batch_size(), sequence = config.data().sequence_length();
  Curve curve;
  run_ranks(ranks, [&](Comm& world) {
    Assembly parts(config, plan_layout(config), world, 1, {.ordinal = 0, .transport = transport, .sums = sums});
    const SyntheticSource::Options options{.vocab = config.model().vocab_size(),
                                           .sequence_length = sequence,
                                           .global_batch_size = batch,
                                           .mean_document = sequence / 3,
                                           .dp = parts.mesh().extent(Axis::Dp),
                                           .dp_rank = parts.mesh().coordinate(Axis::Dp)};
    SyntheticSource source(options), other(options);
    const std::unique_ptr<Pipeline> pipeline = parts.training(source), evaluation = parts.evaluation(other);
    for (const Parameter* p : ranks == 1 ? parts.parameters() : Parameters())
      curve.weights[p->name] = on_host(parts.context(), p->value);
    for (int64_t step = 1; step <= kSteps; ++step) {
      const int64_t first = samples == Samples::Fresh ? (step - 1) * batch : 0;
      const StepResult result = pipeline->step(parts.context(), first, 1e-2, step);
      if (world.rank() != 0) continue;
      curve.losses.push_back(result.loss);
      curve.norms.push_back(result.gradient_norm);
      if (step > 1 || ranks > 1) continue;
      for (const Parameter* p : parts.parameters()) curve.gradients[p->name] = on_host(parts.context(), p->gradient);
    }
    const double loss = evaluation->evaluate(parts.context(), 100, 1, batch).loss;
    if (world.rank() != 0) return;
    curve.evaluation = loss;
    if (ranks > 1) return;
    for (const StateSlice& slice : parts.optimizer().state())
      curve.state[slice.name] = on_host(parts.context(), slice.data);
  });
  return curve;
}

Curve on_cpu(RunConfig config) {
  config.mutable_run()->set_device(RunSection::CPU);
  return train(config);
}

grid::StreamCalls calls_of_step(RunConfig config, int64_t microbatches, int64_t step) {
  config.mutable_data()->set_global_batch_size(microbatches);
  resolve(config, {}, {.data = Surroundings::Data::NotNeeded, .cuda = Surroundings::Cuda::Present});
  grid::StreamCalls before, after;
  run_ranks(1, [&](Comm& world) {
    Assembly parts(config, plan_layout(config), world, 1);
    SyntheticSource source({.vocab = config.model().vocab_size(),
                            .sequence_length = kSequence,
                            .global_batch_size = microbatches,
                            .mean_document = 10});
    const std::unique_ptr<Pipeline> pipeline = parts.training(source);
    for (int64_t i = 1; i <= step; ++i) {
      before = grid::stream_calls();
      pipeline->step(parts.context(), (i - 1) * microbatches, 1e-2, i);
      after = grid::stream_calls();
    }
  });
  return {.to_device = after.to_device - before.to_device,
          .to_host = after.to_host - before.to_host,
          .waits = after.waits - before.waits,
          .kernels = after.kernels - before.kernels,
          .graphs = after.graphs - before.graphs};
}

}  // namespace tessera::testing_device
