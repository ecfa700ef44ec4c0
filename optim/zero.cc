#include "optim/zero.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "optim/adamw.h"
#include "optim/optim.pb.h"
#include "optim/whole_gradients.h"
#include "tensor/ops/elementwise.h"

namespace tessera {
namespace {

bool has_own_master(DType compute) { return compute != accumulation_dtype(compute); }

// Checks what the constructor's members are built from, before any of them is.
const OptimizerConfig& checked(const OptimizerConfig& config, const ZeroOptimizer::Options& options) {
  std::vector<std::string> found = problems(config);
  const int stage = options.zero_stage;
  if (stage < 0 || stage > 3) found.push_back(fmt::format("parallel.zero_stage = {}: there are stages 0 to 3", stage));
  if (options.wire == WireFormat::Bf16 && (stage == 0 || accumulation_dtype(options.compute) != DType::F32))
    found.emplace_back(
        "parallel.gradient_wire = bf16: needs parallel.zero_stage 1 to 3, and run.compute_dtype F32 or BF16, whose "
        "gradients are summed in F32");
  if (!found.empty()) throw UsageError(fmt::format("{}", fmt::join(found, "\n")));
  return config;
}

// Pipeline ranks hold different parameters, but groups are made by all.
Mesh& with_groups(Mesh& mesh, const Parameters& parameters, int zero_stage) {
  std::vector<AxisSet> sets;
  for (const Parameter* parameter : parameters) {
    const Ownership own = ownership(*parameter, mesh.shape(), mesh.world().rank(), zero_stage);
    sets.push_back(zero_stage == 0 ? reduction_group(*parameter) : own.sharers);
    for (const Axis axis : {Axis::TiedEnds, Axis::ZeroReplica}) {
      if (own.copies.has(axis)) sets.push_back({axis});
    }
  }
  mesh.make_groups(sets);
  for (const AxisSet set : sets) mesh.group(set).expect_device_tensors();
  mesh.world().connect_device();
  return mesh;
}

ShardedGradients::Options sharded(const ZeroOptimizer::Options& options) {
  return {.zero_stage = options.zero_stage, .compute = options.compute, .wire = options.wire};
}

std::unique_ptr<Gradients> make_gradients(Mesh& mesh, const Parameters& parameters,
                                          const ZeroOptimizer::Options& options, Device device) {
  if (options.zero_stage == 0) return std::make_unique<WholeGradients>(mesh, parameters, options.compute, device);
  return std::make_unique<ShardedGradients>(mesh, parameters, sharded(options), device);
}

}  // namespace

ZeroOptimizer::Bytes ZeroOptimizer::bytes(const Parameters& parameters, const MeshShape& mesh, int rank,
                                          const Options& options) {
  const DType accumulation = accumulation_dtype(options.compute);
  const int64_t tensors = has_own_master(options.compute) ? 3 : 2;
  Bytes bytes{.state = 0, .gradients = 0, .weights = 0, .gathered = 0};
  for (const Parameter* parameter : parameters) {
    if (parameter->tied_to != nullptr) continue;
    const Interval rows = ownership(*parameter, mesh, rank, options.zero_stage).rows;
    const Shape shape = parameter->global_shape.with_rows(rows.size());
    bytes.state += tensors * Arena::bytes(shape, accumulation);
    if (options.zero_stage == 3) bytes.weights += Arena::bytes(shape, options.compute);
  }
  bytes.gradients = options.zero_stage == 0 ? whole_gradient_bytes(parameters, options.compute)
                                            : ShardedGradients::bytes(parameters, mesh, rank, sharded(options));
  if (options.zero_stage == 3) bytes.gathered = GatheredWeights::bytes(parameters, options.compute, options.lists);
  return bytes;
}

ZeroOptimizer::ZeroOptimizer(Context& context, Mesh& mesh, const Parameters& parameters, const OptimizerConfig& config,
                             const Options& options)
    : config_(std::make_unique<OptimizerConfig>(checked(config, options))),
      mesh_(with_groups(mesh, parameters, options.zero_stage)),
      zero_stage_(options.zero_stage),
      gradients_(make_gradients(mesh, parameters, options, context.device())),
      gradient_norm_([&]() -> GradientNorm {
        const Bytes bytes = ZeroOptimizer::bytes(parameters, mesh.shape(), mesh.world().rank(), options);
        arena_ = Arena("optimizer", context.device(), bytes.state);
        weights_ = Arena("weights", context.device(), bytes.weights);
        gathered_arena_ = Arena("gathered weights", context.device(), bytes.gathered);
        return {mesh.world(), parameters, context.device()};
      }()) {
  const DType dtype = accumulation_dtype(options.compute);
  std::vector<GatheredWeights::Shard> shards;
  for (const GradientShare& share : gradients_->shares()) {
    Parameter* const parameter = share.parameter;
    const Interval rows = share.own.rows;
    const Shape shape = parameter->global_shape.with_rows(rows.size());
    Tensor value;
    if (zero_stage_ == 3) {
      value = weights_.take(shape, options.compute);
      shards.push_back({parameter, share.own, value});
    } else {
      TESSERA_CHECK_EQ(parameter->value.shape(), parameter->local_shape(), parameter->name + " needs a value");
      TESSERA_CHECK(parameter->value.dtype() == options.compute, parameter->name + " is not in the compute dtype");
      value = parameter->value.rows(rows.begin - parameter->rows.begin, rows.end - parameter->rows.begin);
    }
    owned_.push_back({.parameter = parameter,
                      .own = share.own,
                      .gradient = share.sum,
                      .master = has_own_master(options.compute) ? arena_.take(shape, dtype) : value,
                      .exp_avg = arena_.take(shape, dtype),
                      .exp_avg_sq = arena_.take(shape, dtype),
                      .value = value});
    const Owned& owned = owned_.back();
    initialise(context, *parameter, rows, options.seed, owned.master);
    zero(context, owned.exp_avg);
    zero(context, owned.exp_avg_sq);
  }
  if (zero_stage_ == 3) gathered_.emplace(mesh, parameters, shards, gathered_arena_.capacity(), gathered_arena_);
  for (const Arena* arena :
       std::initializer_list<const Arena*>{&arena_, &weights_, &gathered_arena_, &gradients_->arena()})
    TESSERA_CHECK_EQ(arena->used(), arena->capacity(), "the statement of " + arena->name());
  refresh_values(context);
}

ZeroOptimizer::~ZeroOptimizer() = default;

ZeroOptimizer::Bytes ZeroOptimizer::bytes() const {
  return {.state = arena_.capacity(),
          .gradients = gradients_->arena().capacity(),
          .weights = weights_.capacity(),
          .gathered = gathered_arena_.capacity()};
}

void ZeroOptimizer::begin_step(Context& context) {
  gradients_->clear(context);
  if (gathered_) gathered_->reset();
  norm_.reset();
}

void ZeroOptimizer::gather(Context& context, int stage, BlockRange blocks, GatherFor purpose) {
  TESSERA_CHECK(gathered_.has_value(), "weights are whole before stage 3: no GATHER");
  gathered_->gather(context, stage, blocks, purpose);
}

void ZeroOptimizer::weights_needed(Context&, int stage, BlockRange blocks) {
  if (gathered_) gathered_->needed(stage, blocks);
}

void ZeroOptimizer::gradients_needed(Context& context, int stage, BlockRange blocks) {
  gradients_->needed(context, stage, blocks);
}

void ZeroOptimizer::release(Context&, int stage, BlockRange blocks) {
  TESSERA_CHECK(gathered_.has_value(), "weights are whole before stage 3: no RELEASE");
  gathered_->release(stage, blocks);
}

void ZeroOptimizer::reduce(Context& context, int stage, BlockRange blocks, ReduceTurn turn) {
  gradients_->reduce(context, stage, blocks, turn);
}

double ZeroOptimizer::norm(Context& context) {
  gradients_->join(context);
  norm_ = gradient_norm_.compute(context, gradients_->shares());
  return *norm_;
}

void ZeroOptimizer::step(Context& context, double learning_rate, int64_t step) {
  TESSERA_CHECK(config_->max_grad_norm() == 0 || norm_.has_value(), "clipping needs the norm of this step's gradients");
  const double scale = clip_scale(norm_.value_or(0.0), config_->max_grad_norm());
  for (const Owned& owned : owned_)
    adamw(context, adamw_step(*config_, *owned.parameter, learning_rate, scale, step), owned.gradient, owned.master,
          owned.exp_avg, owned.exp_avg_sq, owned.value);
  spread_values();
}

StateSlice ZeroOptimizer::slice(const std::string& name, const Owned& owned, const Tensor& data) const {
  return {.name = name, .global_shape = owned.parameter->global_shape, .rows = owned.own.rows, .data = data};
}

std::vector<StateSlice> ZeroOptimizer::state() {
  std::vector<StateSlice> slices;
  for (const Owned& owned : owned_) {
    slices.push_back(slice(std::string(kMasterPrefix) + owned.parameter->name, owned, owned.master));
    slices.push_back(slice("exp_avg/" + owned.parameter->name, owned, owned.exp_avg));
    slices.push_back(slice("exp_avg_sq/" + owned.parameter->name, owned, owned.exp_avg_sq));
  }
  return slices;
}

std::vector<StateSlice> ZeroOptimizer::gradients() {
  std::vector<StateSlice> slices;
  for (const Owned& owned : owned_) slices.push_back(slice(owned.parameter->name, owned, owned.gradient));
  return slices;
}

void ZeroOptimizer::state_loaded(Context& context) { refresh_values(context); }

void ZeroOptimizer::refresh_values(Context& context) {
  for (const Owned& owned : owned_) {
    if (owned.master.data() != owned.value.data()) cast(context, owned.master, owned.value);
  }
  spread_values();
}

void ZeroOptimizer::spread_values() {
  if (zero_stage_ == 0 || zero_stage_ == 3) return;
  for (const Owned& owned : owned_) {
    const Parameter& parameter = *owned.parameter;
    Comm& group = mesh_.group(owned.own.sharers);
    if (owned.own.owner >= 0) {
      group.broadcast(parameter.value, owned.own.owner);
      continue;
    }
    const Tensor whole(parameter.value.data(), parameter.padded_shape(), parameter.value.dtype(),
                       parameter.value.device());
    const int64_t rows = whole.dim(0) / owned.own.parts;
    group.all_gather(whole.rows(owned.own.part * rows, (owned.own.part + 1) * rows), whole);
  }
}

}  // namespace tessera
