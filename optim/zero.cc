#include "optim/zero.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>

#include "optim/adamw.h"
#include "optim/optim.pb.h"
#include "tensor/ops/elementwise.h"

namespace tessera {
namespace {

// Gradients of one message: long enough for the wire's full speed, short enough that its scratch is small beside the
// gradients.
constexpr int64_t kBucketElements = int64_t{8} << 20;

bool has_own_master(DType compute) { return compute != accumulation_dtype(compute); }

// Checks what the constructor's members are built from, before any of them is.
const OptimizerConfig& checked(const OptimizerConfig& config, int zero_stage) {
  std::vector<std::string> found = problems(config);
  if (zero_stage != 0)
    found.push_back(fmt::format(
        "parallel.zero_stage = {}: this version has stage 0 only (all optimizer state on every replica)", zero_stage));
  if (!found.empty()) throw UsageError(fmt::format("{}", fmt::join(found, "\n")));
  return config;
}

// Pipeline ranks hold different parameters, but groups are made by all.
Mesh& with_groups(Mesh& mesh, const Parameters& parameters) {
  std::vector<AxisSet> sets;
  for (const Parameter* parameter : parameters) {
    sets.push_back(parameter->replicas);
    sets.push_back(reduction_group(*parameter));
    if (parameter->replicas.has(Axis::Ends)) sets.push_back({Axis::Ends});
  }
  mesh.make_groups(sets);
  return mesh;
}

}  // namespace

int64_t optimizer_bytes(const Parameters& parameters, DType compute) {
  const int64_t tensors = has_own_master(compute) ? 3 : 2;
  int64_t bytes = GradientNorm::bytes(parameters);
  for (const Parameter* parameter : parameters) {
    if (parameter->tied_to == nullptr)
      bytes += tensors * Arena::bytes(parameter->local_shape(), accumulation_dtype(compute));
  }
  return bytes;
}

ZeroOptimizer::ZeroOptimizer(Context& context, Mesh& mesh, const Parameters& parameters, const OptimizerConfig& config,
                             const Options& options)
    : config_(std::make_unique<OptimizerConfig>(checked(config, options.zero_stage))),
      arena_("optimizer", context.device(), optimizer_bytes(parameters, options.compute)),
      gradients_("gradients", context.device(), gradient_bytes(parameters, options.compute)),
      gradient_norm_(with_groups(mesh, parameters), parameters, arena_) {
  const DType dtype = accumulation_dtype(options.compute);
  lay_out_gradients(parameters, options.compute, gradients_);
  for (Parameter* parameter : parameters) {
    const Shape shape = parameter->local_shape();
    TESSERA_CHECK_EQ(parameter->value.shape(), shape, parameter->name + " needs a value");
    TESSERA_CHECK(parameter->value.dtype() == options.compute, parameter->name + " is not in the compute dtype");
    if (parameter->replicas.has(Axis::Ends)) {
      ends_.push_back({&mesh.group({Axis::Ends}), parameter->gradient.reshape({parameter->gradient.size()})});
    }
    if (parameter->tied_to != nullptr) {
      tied_.emplace_back(parameter, parameter->tied_to);
      continue;
    }
    const Comm& group = mesh.group(parameter->replicas);
    owned_.push_back({.parameter = parameter,
                      .rows = parameter->rows,
                      .gradient = parameter->gradient,
                      .master = has_own_master(options.compute) ? arena_.take(shape, dtype) : parameter->value,
                      .exp_avg = arena_.take(shape, dtype),
                      .exp_avg_sq = arena_.take(shape, dtype),
                      .value = parameter->value,
                      .replica = group.rank(),
                      .replicas = group.size()});
    const Owned& owned = owned_.back();
    initialise(context, *parameter, owned.rows, options.seed, owned.master);
    zero(context, owned.exp_avg);
    zero(context, owned.exp_avg_sq);
  }
  std::map<int, std::map<int, Parameters>> by_block;  // by stage and block
  for (Parameter* parameter : parameters) by_block[parameter->stage][parameter->block].push_back(parameter);
  for (const auto& [stage, blocks] : by_block) {
    StageReductions reductions{.stage = stage, .whole = {}, .by_block = {}};
    Parameters whole;
    for (const auto& [block, of_block] : blocks) {
      TESSERA_CHECK_EQ(block, static_cast<int>(reductions.by_block.size()), "every block has parameters");
      reductions.by_block.push_back(reductions_of(mesh, of_block));
      whole.insert(whole.end(), of_block.begin(), of_block.end());
    }
    reductions.whole = reductions_of(mesh, whole);
    reductions_.push_back(std::move(reductions));
  }
  refresh_values(context);
}

std::vector<ZeroOptimizer::Reduction> ZeroOptimizer::reductions_of(Mesh& mesh, const Parameters& parameters) const {
  std::vector<Reduction> reductions;
  for (const GradientBucket& bucket : gradient_buckets(parameters, kBucketElements))
    reductions.push_back({&mesh.group(bucket.group), bucket.gradients});
  return reductions;
}

ZeroOptimizer::~ZeroOptimizer() = default;

void ZeroOptimizer::begin_step(Context& context) {
  for (const StageReductions& stage : reductions_) {
    for (const Reduction& reduction : stage.whole) zero(context, reduction.gradients);
  }
  norm_.reset();
}

void ZeroOptimizer::reduce(Context&, int stage, BlockRange range) {
  const auto found = std::find_if(reductions_.begin(), reductions_.end(),
                                  [&](const StageReductions& reductions) { return reductions.stage == stage; });
  TESSERA_CHECK(found != reductions_.end(), "REDUCE of a stage of this rank");
  const int blocks = static_cast<int>(found->by_block.size());
  TESSERA_CHECK(0 <= range.first && range.first <= range.last && range.last <= blocks, "REDUCE of the stage's blocks");
  const auto sum = [](const std::vector<Reduction>& reductions) {
    for (const Reduction& reduction : reductions) reduction.group->all_reduce_sum(reduction.gradients);
  };
  if (range.first == 0 && range.last == blocks) return sum(found->whole);
  for (int block = range.last; block-- > range.first;) sum(found->by_block[block]);
}

void ZeroOptimizer::join_tied(Context& context) {
  for (const auto& [part, whole] : tied_) add(context, whole->gradient, part->gradient, whole->gradient);
  for (const Reduction& end : ends_) end.group->all_reduce_sum(end.gradients);
}

double ZeroOptimizer::norm(Context& context) {
  join_tied(context);
  norm_ = gradient_norm_.compute(context);
  return *norm_;
}

void ZeroOptimizer::step(Context& context, double learning_rate, int64_t step) {
  TESSERA_CHECK(config_->max_grad_norm() == 0 || norm_.has_value(), "clipping needs the norm of this step's gradients");
  const double scale = clip_scale(norm_.value_or(0.0), config_->max_grad_norm());
  for (const Owned& owned : owned_)
    adamw(context, adamw_step(*config_, *owned.parameter, learning_rate, scale, step), owned.gradient, owned.master,
          owned.exp_avg, owned.exp_avg_sq, owned.value);
}

std::vector<StateSlice> ZeroOptimizer::state() {
  std::vector<StateSlice> slices;
  const auto add = [&](const char* kind, const Owned& owned, const Tensor& data) {
    slices.push_back({.name = std::string(kind) + "/" + owned.parameter->name,
                      .global_shape = owned.parameter->global_shape,
                      .rows = owned.rows,
                      .data = data,
                      .replica = owned.replica,
                      .replicas = owned.replicas});
  };
  for (const Owned& owned : owned_) {
    add("master", owned, owned.master);
    add("exp_avg", owned, owned.exp_avg);
    add("exp_avg_sq", owned, owned.exp_avg_sq);
  }
  return slices;
}

void ZeroOptimizer::state_loaded(Context& context) { refresh_values(context); }

void ZeroOptimizer::refresh_values(Context& context) {
  for (const Owned& owned : owned_) {
    if (owned.master.data() != owned.value.data()) cast(context, owned.master, owned.value);
  }
}

}  // namespace tessera
