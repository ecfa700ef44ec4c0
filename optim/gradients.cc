#include "optim/gradients.h"

#include <algorithm>
#include <map>

namespace tessera {
namespace {

constexpr int64_t kAlignedBytes = 64;  // a cache line, and the widest vector

using StageGroup = std::pair<int, AxisSet>;

std::map<StageGroup, Parameters> by_group(const Parameters& parameters) {
  std::map<StageGroup, Parameters> groups;
  for (Parameter* parameter : parameters)
    groups[{parameter->stage, reduction_group(*parameter)}].push_back(parameter);
  return groups;
}

int64_t elements(const Parameters& parameters) {
  int64_t sum = 0;
  for (const Parameter* parameter : parameters) sum += parameter->local_shape().size();
  return sum;
}

}  // namespace

AxisSet reduction_group(const Parameter& parameter) { return parameter.replicas.without({Axis::Ends}); }

int64_t gradient_bytes(const Parameters& parameters, DType compute) {
  int64_t bytes = 0;
  for (const auto& [where, group] : by_group(parameters))
    bytes += Arena::bytes({elements(group)}, accumulation_dtype(compute));
  return bytes;
}

void lay_out_gradients(const Parameters& parameters, DType compute, Arena& arena) {
  const DType dtype = accumulation_dtype(compute);
  for (auto& [where, group] : by_group(parameters)) {
    Parameters ordered = group;
    std::stable_partition(ordered.begin(), ordered.end(), [&](const Parameter* parameter) {
      return parameter->local_shape().size() * size_of(dtype) % kAlignedBytes == 0;
    });
    const Tensor run = arena.take({elements(group)}, dtype);
    int64_t next = 0;
    for (Parameter* parameter : ordered) {
      const Shape shape = parameter->local_shape();
      parameter->gradient = run.rows(next, next + shape.size()).reshape(shape);
      next += shape.size();
    }
  }
}

std::vector<GradientBucket> gradient_buckets(const Parameters& parameters, int64_t max_elements) {
  TESSERA_CHECK(max_elements > 0, "a bucket holds at least one element");
  std::vector<GradientBucket> buckets;
  for (auto& [where, group] : by_group(parameters)) {
    std::vector<Tensor> gradients;
    for (const Parameter* parameter : group) {
      TESSERA_CHECK_EQ(parameter->gradient.shape(), parameter->local_shape(), parameter->name + " needs a gradient");
      if (!parameter->gradient.empty()) gradients.push_back(parameter->gradient.reshape({parameter->gradient.size()}));
    }
    std::sort(gradients.begin(), gradients.end(),
              [](const Tensor& a, const Tensor& b) { return std::less<>()(a.data(), b.data()); });

    for (size_t first = 0; first < gradients.size();) {
      Tensor run = gradients[first];
      size_t next = first + 1;
      for (; next < gradients.size() && gradients[next].dtype() == run.dtype() &&
             gradients[next].data() == static_cast<std::byte*>(run.data()) + run.bytes();
           ++next)
        run = Tensor(run.data(), {run.size() + gradients[next].size()}, run.dtype(), run.device());
      for (int64_t begin = 0; begin < run.size(); begin += max_elements)
        buckets.push_back({where.second, run.rows(begin, std::min(run.size(), begin + max_elements))});
      first = next;
    }
  }
  return buckets;
}

}  // namespace tessera
