#include "optim/gradient_noise.h"

#include <algorithm>
#include <array>

#include "tensor/interval.h"

namespace tessera {

GradientNoise::GradientNoise(Reducer& reducer, Mesh& mesh, const Parameters& parameters, const Source& source,
                             int64_t every, int64_t next_step)
    : ReducerBetween(reducer), mesh_(mesh), source_(source), every_(every), next_step_(next_step) {
  const bool split = mesh.extent(Axis::Tp) > 1;
  for (Parameter* parameter : parameters) {
    if (parameter->tied_to == nullptr && !(split && parameter->replicas.has(Axis::Tp)))
      parameters_.push_back(parameter);
  }
  const Device device = parameters_.empty() ? Device::Cpu : parameters_.front()->gradient.device();
  sums_.emplace(device, static_cast<int64_t>(parameters_.size()));
}

bool GradientNoise::possible(const Mesh& mesh, const Schedule& actions, int microbatches) {
  if (mesh.extent(Axis::Pp) > 1 || mesh.extent(Axis::Cp) > 1) return false;
  if (microbatches * mesh.extent(Axis::Dp) < 2) return false;
  int weights = 0;      // of the first microbatch, block ranges of it
  bool others = false;  // their gradients are in memory, or those of other ranks
  for (const Action& action : actions) {
    if (action.kind == ActionKind::Reduce) others = true;
    const bool computes = action.kind == ActionKind::Forward || action.kind == ActionKind::BackwardInput ||
                          action.kind == ActionKind::BackwardWeight;
    if (!computes) continue;
    if (action.microbatch != 0) others = true;
    if (action.kind != ActionKind::BackwardWeight || action.microbatch != 0) continue;
    if (others || action.stage != 0) return false;
    ++weights;
  }
  return weights > 0;
}

void GradientNoise::begin_step(Context& context) {
  reducer_.begin_step(context);
  small_ = 0;
  measured_.reset();
}

double GradientNoise::squares(Context& context, bool each_once) {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const Parameter* parameter = parameters_[i];
    Interval rows{0, parameter->rows.size()};
    if (each_once) {
      const MeshShape& shape = mesh_.shape();
      rows = shard(rows, shape.extent(parameter->replicas), shape.position(parameter->replicas, mesh_.world().rank()));
    }
    sums_->make(context, static_cast<int64_t>(i), ConstTensor(parameter->gradient).rows(rows.begin, rows.end));
  }
  double sum = 0;
  for (const double square : sums_->fetch(context)) sum += square;
  return sum;
}

void GradientNoise::weight_done(Context& context, int stage, int microbatch) {
  reducer_.weight_done(context, stage, microbatch);
  if (due() && microbatch == 0) small_ = squares(context, false);
}

double GradientNoise::norm(Context& context) {
  const double norm = reducer_.norm(context);
  if (!due()) return norm;
  // Gradients are sums over tokens divided by the step's targets B; one of b tokens is B / b times a mean.
  const auto targets = source_.batch(0).targets;
  const auto b = static_cast<double>(std::count_if(targets.begin(), targets.end(), [](int32_t t) { return t >= 0; }));
  const auto tp = static_cast<double>(mesh_.extent(Axis::Tp));
  const double usable = b > 0 ? 1 : 0;
  std::array<double, 5> sums = {b > 0 ? small_ / (b * b) : 0, b > 0 ? 1 / b / tp : 0, usable / tp,
                                static_cast<double>(source_.targets()) / tp, squares(context, true)};
  mesh_.world().all_reduce_sum(Tensor(std::span<double>(sums), Shape{5}));
  const auto& [small, inverse, ranks, whole, large] = sums;
  if (ranks == 0 || inverse / ranks <= 1 / whole) return norm;
  Measurement found;
  found.noise = (small * whole * whole / ranks - large) / (inverse / ranks - 1 / whole);
  found.square = large - found.noise / whole;
  measured_ = found;
  return norm;
}

void GradientNoise::step(Context& context, double learning_rate, int64_t step) {
  reducer_.step(context, learning_rate, step);
  next_step_ = step + 1;
}

}  // namespace tessera
