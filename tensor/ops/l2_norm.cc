#include "tensor/ops/l2_norm.h"

#include "tensor/has_cuda.h"
#include "tensor/ops/l2_norm_kernels.h"
#include "tensor/ops/operand.h"

namespace tessera {
namespace {

void check(const Context& context, const ConstTensor& wide, int64_t first_column, const ConstTensor& heads) {
  TESSERA_CHECK(wide.rank() == 2 && heads.rank() == 3,
                "l2_norm: x is [tokens, width], and heads are [heads, tokens, dim]");
  check_operand(context, wide, wide.shape(), heads.dtype(), "l2_norm: x");
  check_operand(context, heads, {heads.dim(0), wide.dim(0), heads.dim(2)}, wide.dtype(), "l2_norm: y");
  TESSERA_CHECK(heads.dim(2) > 0, "l2_norm: heads have at least one element");
  TESSERA_CHECK(first_column >= 0 && first_column + heads.dim(0) * heads.dim(2) <= wide.dim(1),
                "l2_norm: the heads' columns are among those of x");
}

void check_rstd(const Context& context, const ConstTensor& heads, const ConstTensor& rstd) {
  check_operand(context, rstd, {heads.dim(0), heads.dim(1)}, accumulation_dtype(heads.dtype()), "l2_norm: rstd");
}

}  // namespace

void l2_norm_heads(const Context& context, const ConstTensor& x, int64_t first_column, double epsilon, const Tensor& y,
                   const Tensor& rstd) {
  check(context, x, first_column, y);
  check_rstd(context, y, rstd);
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::l2_norm_heads(context, x, first_column, epsilon, y, rstd);
  }
  cpu::l2_norm_heads(context, x, first_column, epsilon, y, rstd);
}

void l2_norm_heads_backward(const Context& context, const ConstTensor& dy, const ConstTensor& x, int64_t first_column,
                            const ConstTensor& rstd, const Tensor& dx) {
  check(context, x, first_column, dy);
  check_rstd(context, dy, rstd);
  check_operand(context, dx, x.shape(), x.dtype(), "l2_norm: dx");
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::l2_norm_heads_backward(context, dy, x, first_column, rstd, dx);
  }
  cpu::l2_norm_heads_backward(context, dy, x, first_column, rstd, dx);
}

void split_columns(const Context& context, const ConstTensor& x, int64_t first_column, const Tensor& y) {
  check(context, x, first_column, y);
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::split_columns(context, x, first_column, y);
  }
  cpu::split_columns(context, x, first_column, y);
}

void split_columns_backward(const Context& context, const ConstTensor& dy, int64_t first_column, const Tensor& dx) {
  check(context, dx, first_column, dy);
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::split_columns_backward(context, dy, first_column, dx);
  }
  cpu::split_columns_backward(context, dy, first_column, dx);
}

}  // namespace tessera
