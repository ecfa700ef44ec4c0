// The way in which gemm.cc computes on a GPU: cuBLASLt, opened when the first context on a GPU asks for a product, so
// that processes that stay on the CPU neither load nor need it.
#pragma once

#include "tensor/ops/gemm_cpu.h"

namespace tessera::cuda {

// m, n, k > 0; F64, F32 or BF16, sums in the accumulation dtype. F32 products use full precision, not TF32.
void gemm(Context& context, const GemmShape& shape, const ConstTensor& a, const ConstTensor& b, const ConstTensor& c,
          const GemmOptions& options, const ConstTensor& bias, GemmCall call);

}  // namespace tessera::cuda
