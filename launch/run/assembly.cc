#include "launch/run/assembly.h"

#include <algorithm>
#include <functional>
#include <string>

#include "launch/config/pipeline_config.h"
#include "launch/run.pb.h"
#include "model/cost.h"
#include "parallel/schedule/passes.h"
#include "parallel/schedule/text.h"
#include "parallel/schedule/verify.h"
#include "tensor/ops/gemm/gemm.h"

namespace tessera {
namespace {

int64_t microbatch_tokens(const RunConfig& config) {
  return config.data().micro_batch_size() * config.data().sequence_length();
}

ModelShape shape_of(const RunConfig& config, const Mesh& mesh) {
  const int tp = mesh.extent(Axis::Tp), cp = mesh.extent(Axis::Cp);
  return model_shape(config.model(),
                     {.tp = tp,
                      .tp_rank = mesh.coordinate(Axis::Tp),
                      .cp = cp,
                      .cp_rank = mesh.coordinate(Axis::Cp),
                      .slots = context_slots(microbatch_tokens(config), cp, tp, config.parallel().context_slack()),
                      .compute = compute_dtype(config),
                      .inner_products = product_format(config),
                      .exchanges = context_exchange_plan(config.parallel().context_exchange(),
                                                         static_cast<int>(config.model().num_hidden_layers()))});
}

// Ranks on other hosts may have read other files.
void check_same(const PipelineSchedule& schedule, Comm& world) {
  const auto hash = static_cast<double>(std::hash<std::string>()(to_string(schedule)) >> 12);  // exact in a double
  if (world.max(hash) != -world.max(-hash))
    throw UsageError("parallel.schedule: the ranks have read different schedules; give all of them the same file");
}

// The most blocks of a stage that are between RECOMPUTE and BACKWARD_WEIGHT at once.
int most_recomputed(const Schedule& actions, const StagePart& part, const std::vector<Recompute>& modes) {
  int now = 0, most = 0;
  for (const Action& action : actions) {
    if (action.stage != part.stage) continue;
    const bool makes = action.kind == ActionKind::Recompute, frees = action.kind == ActionKind::BackwardWeight;
    if (!makes && !frees) continue;
    for (int block = action.blocks.first; block < std::min(action.blocks.last, part.blocks()); ++block) {
      if (modes[part.first_block + block] != Recompute::None) now += makes ? 1 : -1;
    }
    most = std::max(most, now);
  }
  return most;
}

}  // namespace

WireFormat wire_format(const RunConfig& config) {
  return config.parallel().gradient_wire() == "bf16" ? WireFormat::Bf16 : WireFormat::Full;
}

DType compute_dtype(const RunConfig& config) {
  switch (config.run().compute_dtype()) {
    case RunSection::F64:
      return DType::F64;
    case RunSection::F32:
      return DType::F32;
    case RunSection::BF16:
    case RunSection::FP8:
      break;
  }
  return DType::BF16;
}

ProductFormat product_format(const RunConfig& config) {
  return config.run().compute_dtype() == RunSection::FP8 ? ProductFormat::Fp8 : ProductFormat::Compute;
}

Assembly::Assembly(const RunConfig& config, Session& session)
    : Assembly(config, session.world, session.threads, choose_gpu(config, session)) {}

Assembly::Assembly(const RunConfig& config, Comm& world, int threads, const RankGpu& gpu)
    : context_({.device = config.run().device() == RunSection::CUDA ? Device::Cuda : Device::Cpu,
                .threads = threads,
                .cuda_device = gpu.ordinal}),
      link_(world, context_, gpu.transport, gpu.sums, gpu.deadline_seconds),
      mesh_(world, MeshShape::resolve(config.parallel(), world.size())),
      shape_(shape_of(config, mesh_)),
      context_options_({.ranks = shape_.cp,
                        .tokens = microbatch_tokens(config),
                        .slots = shape_.slots,
                        .kinds = attention_kinds(shape_)}),
      parts_(stage_parts(config)),
      schedule_(training_schedule(config, parts_)),
      zero_stage_(config.parallel().zero_stage()) {
  check_same(schedule_, world);
  if (product_format(config) == ProductFormat::Fp8) require_fp8_units(context_);
  const int rank = mesh_.coordinate(Axis::Pp);
  const ScheduleFigures figures = verify(schedule_);
  evaluation_group_ = forward_only_group(schedule_.rank_of_stage, figures.stages);
  TESSERA_CHECK(zero_stage_ < 2 || figures.unreduced[rank] == 1, "a block's gradients at a time");
  const std::vector<Recompute> modes = recompute_plan(config.parallel().recompute(), shape_.blocks());
  for (const StagePart& part : parts_) {
    if (schedule_.rank_of_stage[part.stage] != rank) continue;
    stages_.push_back(std::make_unique<Transformer>(
        shape_, Transformer::Options{.part = part,
                                     .recompute = modes,
                                     .slots = figures.stages[part.stage].slots,
                                     .areas = most_recomputed(schedule_.ranks[rank], part, modes),
                                     .device = context_.device(),
                                     .ends_together = schedule_.rank_of_stage.front() == schedule_.rank_of_stage.back(),
                                     .embedding_stage = stages_.empty() ? nullptr : stages_.front().get(),
                                     .weights_elsewhere = zero_stage_ == 3,
                                     .overlap = config.parallel().overlap() ? Overlap::On : Overlap::Off,
                                     .graphs = config.run().cuda_graphs() != CudaGraphs::OFF}));
    parameters_.insert(parameters_.end(), stages_.back()->parameters().begin(), stages_.back()->parameters().end());
  }
  share_out(parameters_, mesh_.shape(), zero_stage_);
  int64_t workspace = 0;
  for (const auto& stage : stages_) {
    stage->allocate(context_, mesh_.tp(), shape_.cp > 1 ? &mesh_.cp() : nullptr);
    workspace = std::max(workspace, stage->workspace_bytes(context_.target()));
  }
  context_.resize_workspace(workspace);
  ZeroOptimizer::Options options{
      .seed = config.run().seed(), .compute = shape_.compute, .zero_stage = zero_stage_, .wire = wire_format(config)};
  // However many groups of microbatches an evaluation has, the third one's GATHERs are the second one's.
  if (zero_stage_ == 3) options.lists = {schedule_.ranks[rank], evaluation_schedule(2 * evaluation_group_).ranks[rank]};
  optimizer_ = std::make_unique<ZeroOptimizer>(context_, mesh_, parameters_, config.optimizer(), options);

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
  dealt_.push_back(std::make_unique<ContextSource>(whole, context_options_, shape_.cp_rank));
  dealt_bytes_ += ContextSource::bytes(context_options_, whole.microbatches());
  return *dealt_.back();
}

std::unique_ptr<Pipeline> Assembly::training(Source& whole, Reducer& reducer) {
  auto pipeline = std::make_unique<Pipeline>(mesh_, stages(), dealt(whole), &reducer, schedule_);
  message_bytes_ += pipeline->message_bytes();
  return pipeline;
}

PipelineSchedule Assembly::evaluation_schedule(int microbatches) const {
  return forward_only_schedule(schedule_.rank_of_stage, microbatches, evaluation_group_,
                               zero_stage_ == 3 ? blocks_of(parts_) : std::vector<int>());
}

std::unique_ptr<Pipeline> Assembly::evaluation(Source& whole) {
  auto pipeline = std::make_unique<Pipeline>(mesh_, stages(), dealt(whole), optimizer_.get(),
                                             evaluation_schedule(whole.microbatches()));
  message_bytes_ += pipeline->message_bytes();
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
                                   {"messages between stages", message_bytes_, device},
                                   {"dealt tokens", dealt_bytes_},
                                   {"workspace", context_.workspace().capacity(), device},
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
