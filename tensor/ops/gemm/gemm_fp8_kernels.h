// The kernels behind gemm_fp8.h on each device: operands already checked, m, n, k > 0.
#pragma once

#include "tensor/ops/gemm/gemm_cpu.h"
#include "tensor/ops/quantise.h"

namespace tessera::cpu {
void gemm_fp8(const Context& context, const GemmShape& shape, const Quantised& a, const Quantised& b, const Tensor& c,
              Write write, const ConstTensor& bias);
}  // namespace tessera::cpu

namespace tessera::cuda {
// By cuBLASLt, in gemm_cuda.cc.
void gemm_fp8(Context& context, const GemmShape& shape, const Quantised& a, const Quantised& b, const ConstTensor& c,
              Write write, const ConstTensor& bias, GemmCall call);
}  // namespace tessera::cuda
