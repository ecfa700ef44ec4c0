#include "tensor/ops/activation.h"

#include "tensor/has_cuda.h"
#include "tensor/ops/activation_kernels.h"
#include "tensor/ops/operand.h"

namespace tessera {
namespace {

Shape paired(const Shape& shape) {
  TESSERA_CHECK_EQ(shape.rank(), 2, "swiglu: the output is a matrix");
  return {shape[0], shape[1], 2};
}

}  // namespace

void swiglu(const Context& context, const ConstTensor& gate_up, const Tensor& y) {
  check_operand(context, gate_up, paired(y.shape()), y.dtype(), "swiglu: gate_up");
  check_size(context, y, y.size(), y.dtype(), "swiglu: y");
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::swiglu(context, gate_up, y);
  }
  cpu::swiglu(context, gate_up, y);
}

void swiglu_backward(const Context& context, const ConstTensor& dy, const ConstTensor& gate_up,
                     const Tensor& dgate_up) {
  check_operand(context, gate_up, paired(dy.shape()), dy.dtype(), "swiglu: gate_up");
  check_operand(context, dgate_up, gate_up.shape(), dy.dtype(), "swiglu: dgate_up");
  check_size(context, dy, dy.size(), dy.dtype(), "swiglu: dy");
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::swiglu_backward(context, dy, gate_up, dgate_up);
  }
  cpu::swiglu_backward(context, dy, gate_up, dgate_up);
}

void gelu(const Context& context, const ConstTensor& x, const Tensor& y) {
  check_operand(context, x, y.shape(), y.dtype(), "gelu: x");
  check_size(context, y, y.size(), y.dtype(), "gelu: y");
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::gelu(context, x, y);
  }
  cpu::gelu(context, x, y);
}

void gelu_backward(const Context& context, const ConstTensor& dy, const ConstTensor& x, const Tensor& dx) {
  check_operand(context, dy, dx.shape(), dx.dtype(), "gelu: dy");
  check_operand(context, x, dx.shape(), dx.dtype(), "gelu: x");
  check_size(context, dx, dx.size(), dx.dtype(), "gelu: dx");
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::gelu_backward(context, dy, x, dx);
  }
  cpu::gelu_backward(context, dy, x, dx);
}

}  // namespace tessera
