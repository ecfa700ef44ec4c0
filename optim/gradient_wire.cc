#include "optim/gradient_wire.h"

#include <algorithm>

#include "tensor/ops/elementwise.h"
#include "tensor/ops/reduce.h"

namespace tessera {
namespace {

// Of all parts of one all-to-all: long enough for the wire's full speed, and small beside the gradients.
constexpr int64_t kElements = int64_t{2} << 20;

}  // namespace

GradientWire::GradientWire(WireFormat format, DType accumulation, int ranks, Arena& arena) : format_(format) {
  if (format == WireFormat::Full) return;
  TESSERA_CHECK(accumulation == DType::F32, "BF16 on the wire is added up in F32");
  TESSERA_CHECK(ranks <= kElements, "a group whose messages have an element a rank");
  outgoing_ = arena.take({kElements}, DType::BF16);
  incoming_ = arena.take({kElements}, DType::BF16);
}

Request GradientWire::start(const Context& context, Comm& group, const Tensor& x) const {
  if (group.size() == 1) return {};
  if (format_ == WireFormat::Bf16) {
    reduce_bf16(context, group, x);
    return {};
  }
  const int64_t rows = x.dim(0) / group.size();
  return group.start_reduce_scatter_sum(x, x.rows(group.rank() * rows, (group.rank() + 1) * rows));
}

void GradientWire::reduce_bf16(const Context& context, Comm& group, const Tensor& x) const {
  const int n = group.size();
  const int64_t part = x.size() / n, most = kElements / n;
  const Tensor flat = x.reshape({x.size()});
  for (int64_t begin = 0; begin < part; begin += most) {
    const int64_t length = std::min(most, part - begin);
    const Tensor out = outgoing_.rows(0, n * length), in = incoming_.rows(0, n * length);
    for (int r = 0; r < n; ++r) {
      cast(context, flat.rows(r * part + begin, r * part + begin + length), out.rows(r * length, (r + 1) * length));
    }
    group.all_to_all(out, in);
    const int64_t own = group.rank() * part + begin;
    sum_parts(context, in, flat.rows(own, own + length));
  }
}

int64_t GradientWire::sent(WireFormat format, DType accumulation, int64_t part_elements, int ranks) {
  return part_elements * (ranks - 1) * size_of(format == WireFormat::Bf16 ? DType::BF16 : accumulation);
}

}  // namespace tessera
