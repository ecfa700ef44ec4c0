#include "optim/clip.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "tensor/ops/reduce.h"

namespace tessera {
namespace {

size_t ordinals(const Parameters& parameters) {
  return parameters.empty() ? 1 : static_cast<size_t>(parameters.front()->ordinals);
}

}  // namespace

double clip_scale(double norm, double max_norm) {
  if (max_norm == 0) return 1.0;
  if (!std::isfinite(norm)) throw NumericalError(fmt::format("the norm of the gradient is {}", norm));
  return norm > max_norm ? max_norm / norm : 1.0;
}

GradientNorm::GradientNorm(Comm& world, const Parameters& parameters) : world_(world), sums_(ordinals(parameters)) {}

double GradientNorm::compute(const Context& context, const std::vector<GradientShare>& shares) {
  std::fill(sums_.begin(), sums_.end(), 0.0);
  for (const GradientShare& share : shares) {
    const Interval counted = shard({0, share.own.rows.size()}, share.own.replicas, share.own.replica);
    sums_[share.parameter->ordinal] = sum_of_squares(context, share.sum.rows(counted.begin, counted.end));
  }
  world_.all_reduce_sum(Tensor(std::span<double>(sums_), Shape{static_cast<int64_t>(sums_.size())}));
  double total = 0;
  for (const double sum : sums_) total += sum;
  return std::sqrt(total);
}

}  // namespace tessera
