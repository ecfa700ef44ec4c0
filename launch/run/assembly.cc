#include "launch/run/assembly.h"

#include <algorithm>
#include <functional>
#include <string>

#include "launch/run.pb.h"
#include "model/cost.h"
#include "parallel/schedule/text.h"
#include "scaling/planning/stages.h"
#include "tensor/ops/gemm/gemm.h"

namespace tessera {
namespace {

// Ranks on other hosts may have read other files.
void check_same(const PipelineSchedule& schedule, Comm& world) {
  const auto hash = static_cast<double>(std::hash<std::string>()(to_string(schedule)) >> 12);  // exact in a double
  if (world.max(hash) != -world.max(-hash))
    throw UsageError("parallel.schedule: the ranks have read different schedules; give all of them the same file");
}

}  // namespace

Assembly::Assembly(const RunConfig& config, const Layout& layout, Session& session)
    : Assembly(config, layout, session.world, session.threads, choose_gpu(config, session)) {}

Assembly::Assembly(const RunConfig& config, const Layout& layout, Comm& world, int threads, const RankGpu& gpu)
    : layout_(layout),
      context_({.device = config.run().device() == RunSection::CUDA ? Device::Cuda : Device::Cpu,
                .threads = threads,
                .cuda_device = gpu.ordinal}),
      link_(world, context_, gpu.transport, gpu.sums, gpu.deadline_seconds),
      mesh_(world, layout.mesh),
      shape_(layout.shape(world.rank())) {
  check_same(layout_.schedule, world);
  if (layout_.products == ProductFormat::Fp8) require_fp8_units(context_);
  stages_ = make_stages(layout_, world.rank(),
                        {.device = context_.device(), .graphs = config.run().cuda_graphs() != CudaGraphs::OFF});
  parameters_ = parameters_of(stages_);
  int64_t workspace = 0;
  for (const auto& stage : stages_) {
    stage->allocate(context_, mesh_.tp(), shape_.cp > 1 ? &mesh_.cp() : nullptr);
    workspace = std::max(workspace, stage->workspace_bytes(context_.target()));
  }
  context_.resize_workspace(workspace);
  optimizer_ = std::make_unique<ZeroOptimizer>(context_, mesh_, parameters_, config.optimizer(),
                                               optimizer_options(layout_, world.rank(), config.run().seed()));

  int64_t elements = 0;  // each once, over all ranks
  for (const Parameter* parameter : parameters_) {
    if (parameter->tied_to != nullptr) continue;
    const MeshShape& shape = mesh_.shape();
    const Interval counted =
        shard(parameter->rows, shape.extent(parameter->replicas), shape.position(parameter->replicas, world.rank()));
    elements += counted.size() * parameter->global_shape.row_size();
  }
  model_parameters_ = world.sum(elements);
}

std::vector<Stage*> Assembly::stages() {
  std::vector<Stage*> stages;
  for (const auto& stage : stages_) stages.push_back(stage.get());
  return stages;
}

Source& Assembly::dealt(Source& whole) {
  if (shape_.cp == 1) return whole;
  dealt_.push_back(std::make_unique<ContextSource>(whole, layout_.context, shape_.cp_rank));
  dealt_bytes_ += ContextSource::bytes(layout_.context, whole.microbatches());
  return *dealt_.back();
}

void Assembly::count(const Pipeline& pipeline) {
  pipeline_bytes_.messages += pipeline.bytes().messages;
  pipeline_bytes_.offloaded += pipeline.bytes().offloaded;
}

std::unique_ptr<Pipeline> Assembly::training(Source& whole, Reducer& reducer) {
  auto pipeline = std::make_unique<Pipeline>(mesh_, stages(), dealt(whole), &reducer, layout_.schedule);
  count(*pipeline);
  return pipeline;
}

std::unique_ptr<Pipeline> Assembly::evaluation(Source& whole) {
  auto pipeline = std::make_unique<Pipeline>(mesh_, stages(), dealt(whole), optimizer_.get(),
                                             layout_.evaluation_schedule(whole.microbatches()));
  count(*pipeline);
  return pipeline;
}

std::vector<MemoryLine> Assembly::memory() const {
  const ZeroOptimizer::Bytes optimizer = optimizer_->bytes();
  int64_t weights = optimizer.weights, activations = 0;
  for (const auto& stage : stages_) {
    weights += stage->weights_bytes();
    activations += stage->activations_bytes();
  }
  const Device device = context_.device();
  std::vector<MemoryLine> lines = {{"weights", weights, device},
                                   {"gathered weights", optimizer.gathered, device},
                                   {"gradients", optimizer.gradients, device},
                                   {"optimizer state", optimizer.state, device},
                                   {"activations", activations, device},
                                   {"messages between stages", pipeline_bytes_.messages, device},
                                   {"offloaded activations", pipeline_bytes_.offloaded},
                                   {"workspace", context_.workspace().capacity(), device},
                                   {"dealt tokens", dealt_bytes_},
                                   {"matrix library scratch", context_.library_bytes(), device}};
  if (device == Device::Cuda) lines.push_back({"sums of squares", optimizer_->norm_bytes(), device});
  if (link_.device_bytes() > 0) lines.push_back({"sums in rank order", link_.device_bytes(), device});
  return lines;
}

int64_t Assembly::visible_pairs(const Pipeline& pipeline) {
  int64_t pairs = 0;
  for (int m = 0; m < pipeline.source().microbatches(); ++m)
    pairs += tessera::visible_pairs(shape_, pipeline.source().batch(m));
  return mesh_.group({Axis::Dp, Axis::Cp}).sum(pairs);
}

int64_t Assembly::arena_bytes() const {
  int64_t bytes = 0;
  for (const MemoryLine& line : memory()) bytes += line.bytes;
  return bytes;
}

}  // namespace tessera
