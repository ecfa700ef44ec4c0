#include "tensor/ops/gemm/gemm_fp8.h"

#include "tensor/has_cuda.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/gemm/gemm_fp8_kernels.h"

namespace tessera {
namespace {

GemmShape check_operands(const Quantised& a, const Quantised& b, const ConstTensor& c, Write write,
                         const ConstTensor& bias) {
  TESSERA_CHECK(a.values.rank() == 2 && b.values.rank() == 2 && c.rank() == 2, "gemm_fp8 operands have rank 2");
  TESSERA_CHECK(is_float8(a.values.dtype()) && is_float8(b.values.dtype()), "gemm_fp8 operands are 8-bit floats");
  TESSERA_CHECK(a.values.dtype() == DType::E4M3 || b.values.dtype() == DType::E4M3,
                "no product of two E5M2 operands, as GPUs have none");
  const GemmShape shape{a.values.dim(0), b.values.dim(0), a.values.dim(1)};
  TESSERA_CHECK_EQ(b.values.dim(1), shape.k, "inner dims of gemm_fp8");
  TESSERA_CHECK_EQ(c.shape(), (Shape{shape.m, shape.n}), "gemm_fp8 result");
  for (const int64_t size : {shape.m, shape.n, shape.k})
    TESSERA_CHECK_EQ(size % kFloat8Multiple, int64_t{0}, "sizes of gemm_fp8 over their unit of 16");
  TESSERA_CHECK(c.dtype() == DType::BF16 || c.dtype() == DType::F32, "dtype of the gemm_fp8 result");
  for (const ConstTensor& scale : {a.scale, b.scale})
    TESSERA_CHECK(scale.size() == 1 && scale.dtype() == DType::F32, "a gemm_fp8 operand has one scale in F32");
  if (bias.rank() == 1) {
    TESSERA_CHECK(write == Write::Overwrite, "a bias goes with Write::Overwrite");
    TESSERA_CHECK(bias.dtype() == DType::BF16 && c.dtype() == DType::BF16, "dtype of the gemm_fp8 bias");
    TESSERA_CHECK_EQ(bias.shape(), Shape{shape.n}, "gemm_fp8 bias");
  }
  return shape;
}

}  // namespace

void gemm_fp8(Context& context, const Quantised& a, const Quantised& b, const Tensor& c, Write write,
              const ConstTensor& bias) {
  const GemmShape shape = check_operands(a, b, c, write, bias);
  context.count_matrix_flops(gemm_flops(shape.m, shape.n, shape.k));
  if (shape.m == 0 || shape.n == 0) return;
  if (shape.k == 0) {
    if (write == Write::Overwrite) zero(context, c);
    if (bias.rank() == 1) add_bias(context, bias, c);
    return;
  }
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::gemm_fp8(context, shape, a, b, c, write, bias, GemmCall::Run);
  }
  cpu::gemm_fp8(context, shape, a, b, c, write, bias);
}

void gemm_fp8_prepare(Context& context, const Quantised& a, const Quantised& b, const ConstTensor& c, Write write,
                      const ConstTensor& bias) {
  const GemmShape shape = check_operands(a, b, c, write, bias);
  if (shape.m == 0 || shape.n == 0 || shape.k == 0) return;
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda)
      return cuda::gemm_fp8(context, shape, a, b, c, write, bias, GemmCall::PrepareOnly);
  }
}

}  // namespace tessera
