#include "optim/clip.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "tensor/ops/reduce.h"

namespace tessera {
namespace {

Shape sums_shape(const Parameters& parameters) { return {parameters.empty() ? 1 : parameters.front()->ordinals}; }

}  // namespace

double clip_scale(double norm, double max_norm) {
  if (max_norm == 0) return 1.0;
  if (!std::isfinite(norm)) throw NumericalError(fmt::format("the norm of the gradient is {}", norm));
  return norm > max_norm ? max_norm / norm : 1.0;
}

int64_t GradientNorm::bytes(const Parameters& parameters) { return Arena::bytes(sums_shape(parameters), DType::F64); }

GradientNorm::GradientNorm(Comm& world, const Parameters& parameters, Arena& arena)
    : world_(world), sums_(arena.take(sums_shape(parameters), DType::F64)) {}

double GradientNorm::compute(const Context& context, const std::vector<GradientShare>& shares) {
  const std::span<double> sums = sums_.span<double>();
  std::fill(sums.begin(), sums.end(), 0.0);
  for (const GradientShare& share : shares) {
    const Interval counted = shard({0, share.own.rows.size()}, share.own.replicas, share.own.replica);
    sums[share.parameter->ordinal] = sum_of_squares(context, share.sum.rows(counted.begin, counted.end));
  }
  world_.all_reduce_sum(sums_);
  double total = 0;
  for (const double sum : sums) total += sum;
  return std::sqrt(total);
}

}  // namespace tessera
