#include "optim/clip.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "tensor/ops/reduce.h"

namespace tessera {
namespace {

// The axes that a parameter is split along: ranks along them hold other rows. Pipeline ranks hold other parameters.
AxisSet split_axes(const Parameter& parameter) {
  return AxisSet{Axis::Dp, Axis::Cp, Axis::Tp}.without(parameter.replicas);
}

std::map<AxisSet, std::vector<const Parameter*>> by_split(const Parameters& parameters) {
  std::map<AxisSet, std::vector<const Parameter*>> result;
  for (const Parameter* parameter : parameters) result[split_axes(*parameter)].push_back(parameter);
  return result;
}

Shape sums_shape(const std::vector<const Parameter*>& parameters) { return {static_cast<int64_t>(parameters.size())}; }

}  // namespace

double clip_scale(double norm, double max_norm) {
  if (max_norm == 0) return 1.0;
  if (!std::isfinite(norm)) throw NumericalError(fmt::format("the norm of the gradient is {}", norm));
  return norm > max_norm ? max_norm / norm : 1.0;
}

int64_t GradientNorm::bytes(const Parameters& parameters) {
  int64_t bytes = 0;
  for (const auto& [axes, split] : by_split(parameters)) bytes += Arena::bytes(sums_shape(split), DType::F64);
  return bytes;
}

GradientNorm::GradientNorm(Mesh& mesh, const Parameters& parameters, Arena& arena) {
  std::vector<std::pair<std::string, const double*>> named;
  for (auto& [axes, split] : by_split(parameters)) {
    const Tensor sums = arena.take(sums_shape(split), DType::F64);
    for (size_t i = 0; i < split.size(); ++i) named.emplace_back(split[i]->name, sums.as<double>() + i);
    splits_.push_back({&mesh.group(axes), split, sums});
  }
  std::sort(named.begin(), named.end());
  for (const auto& [name, sum] : named) in_name_order_.push_back(sum);
}

double GradientNorm::compute(const Context& context) {
  for (const Split& split : splits_) {
    double* sums = split.sums.as<double>();
    for (size_t i = 0; i < split.parameters.size(); ++i)
      sums[i] = sum_of_squares(context, split.parameters[i]->gradient);
    split.group->all_reduce_sum(split.sums);
  }
  double total = 0;
  for (const double* sum : in_name_order_) total += *sum;
  return std::sqrt(total);
}

}  // namespace tessera
