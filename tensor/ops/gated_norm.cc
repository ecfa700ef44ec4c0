#include "tensor/ops/gated_norm.h"

#include "tensor/has_cuda.h"
#include "tensor/ops/gated_norm_kernels.h"
#include "tensor/ops/operand.h"

namespace tessera {
namespace {

void check(const Context& context, const ConstTensor& x, const ConstTensor& gate, const ConstTensor& weight,
           const ConstTensor& rstd) {
  TESSERA_CHECK(x.rank() == 3 && x.dim(2) > 0, "gated_norm: x is [tokens, heads, dim], and heads have elements");
  check_operand(context, x, x.shape(), x.dtype(), "gated_norm: x");
  check_operand(context, gate, x.shape(), x.dtype(), "gated_norm: gate");
  check_operand(context, weight, {x.dim(2)}, x.dtype(), "gated_norm: weight");
  check_operand(context, rstd, {x.dim(0), x.dim(1)}, accumulation_dtype(x.dtype()), "gated_norm: rstd");
}

}  // namespace

void gated_rms_norm(const Context& context, const ConstTensor& x, const ConstTensor& gate, const ConstTensor& weight,
                    double epsilon, const Tensor& y, const Tensor& rstd) {
  check(context, x, gate, weight, rstd);
  check_operand(context, y, x.shape(), x.dtype(), "gated_norm: y");
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::gated_rms_norm(context, x, gate, weight, epsilon, y, rstd);
  }
  cpu::gated_rms_norm(context, x, gate, weight, epsilon, y, rstd);
}

void gated_rms_norm_backward(Context& context, const ConstTensor& dy, const ConstTensor& x, const ConstTensor& gate,
                             const ConstTensor& weight, const ConstTensor& rstd, const Tensor& dx, const Tensor& dgate,
                             const Tensor& dweight) {
  check(context, x, gate, weight, rstd);
  check_operand(context, dy, x.shape(), x.dtype(), "gated_norm: dy");
  check_operand(context, dx, x.shape(), x.dtype(), "gated_norm: dx");
  check_operand(context, dgate, x.shape(), x.dtype(), "gated_norm: dgate");
  check_operand(context, dweight, weight.shape(), accumulation_dtype(x.dtype()), "gated_norm: dweight");
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda)
      return cuda::gated_rms_norm_backward(context, dy, x, gate, weight, rstd, dx, dgate, dweight);
  }
  cpu::gated_rms_norm_backward(context, dy, x, gate, weight, rstd, dx, dgate, dweight);
}

int64_t gated_rms_norm_backward_workspace(const Target& target, int64_t dim, DType compute) {
  return Arena::bytes({gated_norm_partials(target), dim}, accumulation_dtype(compute));
}

}  // namespace tessera
