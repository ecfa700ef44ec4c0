#include "optim/whole_gradients.h"

#include <algorithm>
#include <map>

#include "tensor/ops/elementwise.h"

namespace tessera {
namespace {

constexpr int64_t kAlignedBytes = 64;  // a cache line, and the widest vector

// Gradients of one message: long enough for the wire's full speed, short enough that its scratch is small beside the
// gradients.
constexpr int64_t kBucketElements = int64_t{8} << 20;

using StageGroup = std::pair<int, AxisSet>;

std::map<StageGroup, Parameters> by_group(const Parameters& parameters) {
  std::map<StageGroup, Parameters> groups;
  for (Parameter* parameter : parameters) groups[{parameter->stage, reduction_group(*parameter)}].push_back(parameter);
  return groups;
}

// The order in which the gradients of one stage and group lie side by side.
Parameters in_memory_order(const Parameters& group, DType accumulation) {
  Parameters ordered = group;
  std::stable_partition(ordered.begin(), ordered.end(), [&](const Parameter* parameter) {
    return parameter->local_shape().size() * size_of(accumulation) % kAlignedBytes == 0;
  });
  return ordered;
}

int64_t elements(const Parameters& parameters) {
  int64_t sum = 0;
  for (const Parameter* parameter : parameters) sum += parameter->local_shape().size();
  return sum;
}

// Those of a run of gradients without gaps.
void add_messages(AxisSet group, int64_t run, std::vector<GradientMessage>& messages) {
  for (int64_t begin = 0; begin < run; begin += kBucketElements)
    messages.push_back({group, std::min(kBucketElements, run - begin)});
}

}  // namespace

int64_t whole_gradient_bytes(const Parameters& parameters, DType compute) {
  int64_t bytes = 0;
  for (const auto& [where, group] : by_group(parameters))
    bytes += Arena::bytes({elements(group)}, accumulation_dtype(compute));
  return bytes;
}

void lay_out_gradients(const Parameters& parameters, DType compute, Arena& arena) {
  const DType dtype = accumulation_dtype(compute);
  for (auto& [where, group] : by_group(parameters)) {
    const Tensor run = arena.take({elements(group)}, dtype);
    int64_t next = 0;
    for (Parameter* parameter : in_memory_order(group, dtype)) {
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

std::vector<GradientMessage> gradient_messages(const Parameters& parameters, DType compute, int stage,
                                               BlockRange blocks) {
  int last_block = 0;
  for (const Parameter* parameter : parameters) {
    if (parameter->stage == stage) last_block = std::max(last_block, parameter->block);
  }
  const bool whole = blocks.first == 0 && blocks.last == last_block + 1;
  std::vector<GradientMessage> messages;
  for (const auto& [where, group] : by_group(parameters)) {
    if (where.first != stage) continue;
    if (whole) {
      add_messages(where.second, elements(group), messages);
      continue;
    }
    const Parameters ordered = in_memory_order(group, accumulation_dtype(compute));
    for (int block = blocks.first; block < blocks.last; ++block) {
      int64_t run = 0;
      for (const Parameter* parameter : ordered) {
        const int64_t size = parameter->local_shape().size();
        if (size == 0) continue;  // does not part its neighbours
        if (parameter->block == block) {
          run += size;
        } else {
          add_messages(where.second, run, messages);
          run = 0;
        }
      }
      add_messages(where.second, run, messages);
    }
  }
  return messages;
}

WholeGradients::WholeGradients(Mesh& mesh, const Parameters& parameters, DType compute, Device device) {
  arena_ = Arena("gradients", device, whole_gradient_bytes(parameters, compute));
  lay_out_gradients(parameters, compute, arena_);
  std::vector<GradientShare> shares;
  std::map<int, std::map<int, Parameters>> by_block;  // by stage and block
  for (Parameter* parameter : parameters) {
    shares.push_back({parameter, ownership(*parameter, mesh.shape(), mesh.world().rank(), 0), parameter->gradient});
    by_block[parameter->stage][parameter->block].push_back(parameter);
  }
  set_shares(mesh, shares);
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
}

std::vector<WholeGradients::Reduction> WholeGradients::reductions_of(Mesh& mesh, const Parameters& parameters) {
  std::vector<Reduction> reductions;
  for (const GradientBucket& bucket : gradient_buckets(parameters, kBucketElements))
    reductions.push_back({&mesh.group(bucket.group), bucket.gradients});
  return reductions;
}

void WholeGradients::clear(Context& context) {
  for (const StageReductions& stage : reductions_) {
    for (const Reduction& reduction : stage.whole) zero(context, reduction.gradients);
  }
}

void WholeGradients::reduce(Context&, int stage, BlockRange range, ReduceTurn turn) {
  if (turn != ReduceTurn::Last) return;
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

}  // namespace tessera
