#include "tensor/ops/gemm/gemm.h"

#include "tensor/has_cuda.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/gemm/gemm_cpu.h"
#include "tensor/ops/gemm/gemm_cuda.h"

namespace tessera {

GemmShape check_gemm(const ConstTensor& a, const ConstTensor& b, const ConstTensor& c, const GemmOptions& options,
                     const ConstTensor& bias) {
  TESSERA_CHECK(a.rank() == 2 && b.rank() == 2 && c.rank() == 2, "gemm operands have rank 2");
  const bool ta = options.a == Transpose::Yes, tb = options.b == Transpose::Yes;
  const GemmShape shape{a.dim(ta ? 1 : 0), b.dim(tb ? 0 : 1), a.dim(ta ? 0 : 1)};
  TESSERA_CHECK_EQ(b.dim(tb ? 1 : 0), shape.k, "inner dims of gemm");
  TESSERA_CHECK_EQ(c.shape(), (Shape{shape.m, shape.n}), "gemm result");
  TESSERA_CHECK(a.dtype() == b.dtype(), "gemm operands share a dtype");
  TESSERA_CHECK(c.dtype() == a.dtype() || c.dtype() == accumulation_dtype(a.dtype()), "dtype of the gemm result");
  if (bias.rank() == 1) {
    TESSERA_CHECK(options.c == Write::Overwrite, "a bias goes with Write::Overwrite");
    TESSERA_CHECK(bias.dtype() == a.dtype(), "dtype of the gemm bias");
    TESSERA_CHECK_EQ(bias.shape(), Shape{shape.n}, "gemm bias");
  }
  return shape;
}

void gemm(Context& context, const ConstTensor& a, const ConstTensor& b, const Tensor& c, const GemmOptions& options,
          const ConstTensor& bias) {
  const bool has_bias = bias.rank() == 1;
  const GemmShape shape = check_gemm(a, b, c, options, bias);
  context.count_matrix_flops(gemm_flops(shape.m, shape.n, shape.k));
  if (shape.m == 0 || shape.n == 0) return;
  if (shape.k == 0) {
    if (options.c == Write::Overwrite) zero(context, c);
    if (has_bias) add_bias(context, bias, c);
    return;
  }
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::gemm(context, shape, a, b, c, options, bias, GemmCall::Run);
  }
  if (a.dtype() == DType::F64) {
    gemm_f64(context, shape, a.as<double>(), b.as<double>(), c.as<double>(), options,
             has_bias ? bias.as<double>() : nullptr);
  } else {
    gemm_onednn(context, shape, a, b, c, options, bias, GemmCall::Run);
  }
}

void gemm_prepare(Context& context, const ConstTensor& a, const ConstTensor& b, const ConstTensor& c,
                  const GemmOptions& options, const ConstTensor& bias) {
  const GemmShape shape = check_gemm(a, b, c, options, bias);
  if (shape.m == 0 || shape.n == 0 || shape.k == 0) return;
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda)
      return cuda::gemm(context, shape, a, b, c, options, bias, GemmCall::PrepareOnly);
  }
  if (a.dtype() == DType::F64) return;
  gemm_onednn(context, shape, a, b, c, options, bias, GemmCall::PrepareOnly);
}

int64_t gemm_flops(int64_t m, int64_t n, int64_t k) { return 2 * m * n * k; }

}  // namespace tessera
