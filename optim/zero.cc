#include "optim/zero.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

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
const OptimizerConfig& checked(const OptimizerConfig& config, const Mesh& mesh, int zero_stage) {
  std::vector<std::string> found = problems(config);
  if (zero_stage != 0)
    found.push_back(fmt::format(
        "parallel.zero_stage = {}: this version has stage 0 only (all optimizer state on every replica)", zero_stage));
  if (mesh.extent(Axis::Pp) != 1)
    found.push_back(fmt::format("parallel.pp = {}: this version's optimizer has one pipeline stage only (pp = 1)",
                                mesh.extent(Axis::Pp)));
  if (!found.empty()) throw UsageError(fmt::format("{}", fmt::join(found, "\n")));
  return config;
}

}  // namespace

int64_t optimizer_bytes(const Parameters& parameters, DType compute) {
  const int64_t tensors = has_own_master(compute) ? 3 : 2;
  int64_t bytes = GradientNorm::bytes(parameters);
  for (const Parameter* parameter : parameters)
    bytes += tensors * Arena::bytes(parameter->local_shape(), accumulation_dtype(compute));
  return bytes;
}

ZeroOptimizer::ZeroOptimizer(Context& context, Mesh& mesh, const Parameters& parameters, const OptimizerConfig& config,
                             const Options& options)
    : config_(std::make_unique<OptimizerConfig>(checked(config, mesh, options.zero_stage))),
      arena_("optimizer", context.device(), optimizer_bytes(parameters, options.compute)),
      gradients_("gradients", context.device(), gradient_bytes(parameters, options.compute)),
      gradient_norm_(mesh, parameters, arena_) {
  const DType dtype = accumulation_dtype(options.compute);
  lay_out_gradients(parameters, options.compute, gradients_);
  for (Parameter* parameter : parameters) {
    const Shape shape = parameter->local_shape();
    TESSERA_CHECK_EQ(parameter->value.shape(), shape, parameter->name + " needs a value");
    TESSERA_CHECK(parameter->value.dtype() == options.compute, parameter->name + " is not in the compute dtype");
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
  for (const GradientBucket& bucket : gradient_buckets(parameters, kBucketElements))
    reductions_.push_back({&mesh.group(bucket.replicas), bucket.gradients});
  refresh_values(context);
}

ZeroOptimizer::~ZeroOptimizer() = default;

void ZeroOptimizer::begin_step(Context& context) {
  for (const Reduction& reduction : reductions_) zero(context, reduction.gradients);
  norm_.reset();
}

void ZeroOptimizer::reduce(Context&) {
  for (const Reduction& reduction : reductions_) reduction.group->all_reduce_sum(reduction.gradients);
}

double ZeroOptimizer::norm(Context& context) {
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
