#include "tensor/ops/attention/attention_merge.h"

#include "tensor/has_cuda.h"
#include "tensor/ops/attention/attention_merge_kernels.h"
#include "tensor/ops/operand.h"

namespace tessera {
namespace {

void check_merged(const Context& context, const Tensor& out, const Tensor& lse) {
  TESSERA_CHECK_EQ(out.rank(), 3, "attention_merge: out [queries, heads, head_dim] has three dims");
  const DType dtype = accumulation_dtype(out.dtype());
  check_operand(context, out, out.shape(), dtype, "attention_merge: out");
  check_operand(context, lse, {out.dim(1), out.dim(0)}, dtype, "attention_merge: lse");
}

}  // namespace

void attention_merge(const Context& context, const ConstTensor& part_out, const ConstTensor& part_lse,
                     const Tensor& out, const Tensor& lse) {
  check_merged(context, out, lse);
  TESSERA_CHECK(accumulation_dtype(part_out.dtype()) == out.dtype(), "attention_merge: out has the accumulation dtype");
  check_operand(context, part_out, out.shape(), part_out.dtype(), "attention_merge: part_out");
  check_operand(context, part_lse, lse.shape(), lse.dtype(), "attention_merge: part_lse");
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::attention_merge(context, part_out, part_lse, out, lse);
  }
  cpu::attention_merge(context, part_out, part_lse, out, lse);
}

void attention_merge_start(const Context& context, const Tensor& out, const Tensor& lse) {
  check_merged(context, out, lse);
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::attention_merge_start(context, out, lse);
  }
  cpu::attention_merge_start(context, out, lse);
}

}  // namespace tessera
