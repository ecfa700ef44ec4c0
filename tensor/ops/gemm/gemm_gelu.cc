#include "tensor/ops/gemm/gemm_gelu.h"

#include "tensor/has_cuda.h"
#include "tensor/ops/activation.h"
#include "tensor/ops/gemm/gemm_cuda.h"

namespace tessera {
namespace {

// Whether the GPU's matrix library did both at once, or on PrepareOnly, whether it will. x: read by GeluBackward,
// overwritten by Gelu.
bool at_once(Context& context, GemmEpilogue epilogue, const ConstTensor& a, const ConstTensor& b, const ConstTensor& x,
             const ConstTensor& result, const GemmOptions& options, const ConstTensor& bias, GemmCall call) {
  const GemmShape shape = check_gemm(a, b, result, options, bias);
  TESSERA_CHECK(options.c == Write::Overwrite, "a product with an activation overwrites");
  TESSERA_CHECK(result.dtype() == a.dtype() && x.dtype() == a.dtype(), "dtype of a product with an activation");
  TESSERA_CHECK_EQ(x.shape(), result.shape(), "operand of the activation");
  if constexpr (kHasCuda) {
    if (context.device() != Device::Cuda || shape.m == 0 || shape.n == 0 || shape.k == 0) return false;
    if (!cuda::gemm_gelu(context, epilogue, shape, a, b, x, result, options, bias, call)) return false;
    if (call == GemmCall::Run) context.count_matrix_flops(gemm_flops(shape.m, shape.n, shape.k));
    return true;
  }
  return false;
}

}  // namespace

void gemm_gelu(Context& context, const ConstTensor& a, const ConstTensor& b, const Tensor& x, const Tensor& y,
               const GemmOptions& options, const ConstTensor& bias) {
  if (at_once(context, GemmEpilogue::Gelu, a, b, x, y, options, bias, GemmCall::Run)) return;
  gemm(context, a, b, x, options, bias);
  gelu(context, x, y);
}

void gemm_gelu_backward(Context& context, const ConstTensor& a, const ConstTensor& b, const ConstTensor& x,
                        const Tensor& dx, const GemmOptions& options) {
  if (at_once(context, GemmEpilogue::GeluBackward, a, b, x, dx, options, {}, GemmCall::Run)) return;
  gemm(context, a, b, dx, options);
  gelu_backward(context, dx, x, dx);
}

void gemm_gelu_prepare(Context& context, const ConstTensor& a, const ConstTensor& b, const ConstTensor& y,
                       const GemmOptions& options, const ConstTensor& bias) {
  if (at_once(context, GemmEpilogue::Gelu, a, b, y, y, options, bias, GemmCall::PrepareOnly)) return;
  gemm_prepare(context, a, b, y, options, bias);
}

void gemm_gelu_backward_prepare(Context& context, const ConstTensor& a, const ConstTensor& b, const ConstTensor& dx,
                                const GemmOptions& options) {
  if (at_once(context, GemmEpilogue::GeluBackward, a, b, dx, dx, options, {}, GemmCall::PrepareOnly)) return;
  gemm_prepare(context, a, b, dx, options);
}

}  // namespace tessera
