#include "tensor/ops/elementwise.h"

#include "tensor/has_cuda.h"
#include "tensor/ops/elementwise_kernels.h"
#include "tensor/ops/operand.h"

namespace tessera {

void add(const Context& context, const ConstTensor& a, const ConstTensor& b, const Tensor& y) {
  check_size(context, a, y.size(), y.dtype(), "add: a");
  check_size(context, b, y.size(), y.dtype(), "add: b");
  check_size(context, y, y.size(), y.dtype(), "add: y");
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::add(context, a, b, y);
  }
  cpu::add(context, a, b, y);
}

void accumulate(const Context& context, const ConstTensor& x, const Tensor& y) {
  check_size(context, x, y.size(), x.dtype(), "accumulate: x");
  check_size(context, y, y.size(), accumulation_dtype(x.dtype()), "accumulate: y");
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::accumulate(context, x, y);
  }
  cpu::accumulate(context, x, y);
}

void cast(const Context& context, const ConstTensor& x, const Tensor& y) {
  check_size(context, x, y.size(), x.dtype(), "cast: x");
  check_size(context, y, y.size(), y.dtype(), "cast: y");
  TESSERA_CHECK(x.dtype() == y.dtype() || x.data() != y.data() || y.empty(), "cast: in place only to the same dtype");
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::cast(context, x, y);
  }
  cpu::cast(context, x, y);
}

void scale(const Context& context, double factor, const Tensor& x) {
  check_size(context, x, x.size(), x.dtype(), "scale: x");
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::scale(context, factor, x);
  }
  cpu::scale(context, factor, x);
}

void add_bias(const Context& context, const ConstTensor& bias, const Tensor& x) {
  TESSERA_CHECK_EQ(x.rank(), 2, "add_bias: x is a matrix");
  check_operand(context, bias, {x.dim(1)}, x.dtype(), "add_bias: bias");
  check_size(context, x, x.size(), x.dtype(), "add_bias: x");
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::add_bias(context, bias, x);
  }
  cpu::add_bias(context, bias, x);
}

void zero(const Context& context, const Tensor& x) {
  check_size(context, x, x.size(), x.dtype(), "zero: x");
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::zero(context, x);
  }
  cpu::zero(context, x);
}

}  // namespace tessera
