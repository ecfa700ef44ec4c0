// The two ways in which gemm.cc computes on the CPU.
#pragma once

#include "tensor/ops/gemm/gemm.h"

namespace tessera {

struct GemmShape {
  int64_t m, n, k;
};

// Checks a product's operands and returns its sizes.
GemmShape check_gemm(const ConstTensor& a, const ConstTensor& b, const ConstTensor& c, const GemmOptions& options,
                     const ConstTensor& bias);

// oneDNN, F32 and BF16; m, n, k > 0.
enum class GemmCall : uint8_t { Run, PrepareOnly };
void gemm_onednn(Context& context, const GemmShape& shape, const ConstTensor& a, const ConstTensor& b,
                 const ConstTensor& c, const GemmOptions& options, const ConstTensor& bias, GemmCall call);

// Plain, F64.
void gemm_f64(const Context& context, const GemmShape& shape, const double* a, const double* b, double* c,
              const GemmOptions& options, const double* bias);

}  // namespace tessera
