#include "optim/clip.h"

#include <fmt/format.h>

#include <cmath>

namespace tessera {
namespace {

int64_t ordinals(const Parameters& parameters) { return parameters.empty() ? 1 : parameters.front()->ordinals; }

}  // namespace

double clip_scale(double norm, double max_norm) {
  if (max_norm == 0) return 1.0;
  if (!std::isfinite(norm)) throw NumericalError(fmt::format("the norm of the gradient is {}", norm));
  return norm > max_norm ? max_norm / norm : 1.0;
}

GradientNorm::GradientNorm(Comm& world, const Parameters& parameters, Device device)
    : world_(world), sums_(device, ordinals(parameters)) {}

int64_t GradientNorm::bytes(const Parameters& parameters) { return SquareSums::bytes(ordinals(parameters)); }

double GradientNorm::compute(const Context& context, const std::vector<GradientShare>& shares) {
  sums_.clear(context);
  for (const GradientShare& share : shares) {
    const Interval counted = shard({0, share.own.rows.size()}, share.own.replicas, share.own.replica);
    sums_.make(context, share.parameter->ordinal, share.sum.rows(counted.begin, counted.end));
  }
  const std::span<double> sums = sums_.fetch(context);
  world_.all_reduce_sum(Tensor(sums, Shape{static_cast<int64_t>(sums.size())}));
  double total = 0;
  for (const double sum : sums) total += sum;
  return std::sqrt(total);
}

}  // namespace tessera
