// The way in which gemm.cc computes on a GPU: cuBLASLt, opened when the first context on a GPU asks for a product, so
// that processes that stay on the CPU neither load nor need it.
#pragma once

#include "tensor/cuda/device.h"
#include "tensor/ops/gemm/gemm_key.h"

namespace tessera::cuda {

// m, n, k > 0; F64, F32 or BF16, sums in the accumulation dtype. F32 products use full precision, not TF32.
void gemm(Context& context, const GemmShape& shape, const ConstTensor& a, const ConstTensor& b, const ConstTensor& c,
          const GemmOptions& options, const ConstTensor& bias, GemmCall call);

// The product with what the epilogue says behind it, not None; result: its y or dx (gemm_gelu.h). x is overwritten by
// Gelu. False, with nothing done, where the library has no such kernel: always the same for the same operands.
bool gemm_gelu(Context& context, GemmEpilogue epilogue, const GemmShape& shape, const ConstTensor& a,
               const ConstTensor& b, const ConstTensor& x, const ConstTensor& result, const GemmOptions& options,
               const ConstTensor& bias, GemmCall call);
// What it asks for before it looks for a kernel; aligned: all operands to 16 bytes. In F32 the library's hyperbolic
// tangent may be worse than the sums; x's rows must be multiples of 8; llm.c takes these kernels from Hopper on alone,
// as slower than two on what came before.
inline bool gelu_may_follow(const DeviceInfo& device, const GemmShape& shape, DType dtype, bool aligned) {
  return dtype == DType::BF16 && device.major >= 9 && shape.n % 8 == 0 && aligned;
}

}  // namespace tessera::cuda
