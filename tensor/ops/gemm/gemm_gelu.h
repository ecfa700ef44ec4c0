// Matrix products with GELU (activation.h) or its gradient behind them, row-major:
//
//   x = op(A) op(B) [+ bias],  y = gelu(x)                  the first half of an MLP
//   dx = (op(A) op(B)) gelu'(x)                             and its gradient, A B being that of y
//
// On GPUs of compute capability 9 and above, in BF16, the matrix library does both in one kernel where it can: x or the
// product is then not read again, and the activation is computed from sums that were not rounded yet, so that it
// differs from gelu(context, x, y) by what rounding x changes. Everywhere else these are gemm() and gelu() or
// gelu_backward(), to the last bit. (The gradient of the bias stays an operation of its own: the library's sums it in
// an order that may change.)
#pragma once

#include "tensor/ops/gemm/gemm.h"

namespace tessera {

// a, b, bias: as in gemm(). x, y [m, n] in A's dtype, both overwritten. No operand aliases another.
void gemm_gelu(Context& context, const ConstTensor& a, const ConstTensor& b, const Tensor& x, const Tensor& y,
               const GemmOptions& options, const ConstTensor& bias = {});

// a, b: as in gemm(). x, dx [m, n] in A's dtype. Overwrites dx, which may alias no operand.
void gemm_gelu_backward(Context& context, const ConstTensor& a, const ConstTensor& b, const ConstTensor& x,
                        const Tensor& dx, const GemmOptions& options);

// Finds the algorithms for these operands (their data may be null) without running them.
void gemm_gelu_prepare(Context& context, const ConstTensor& a, const ConstTensor& b, const ConstTensor& y,
                       const GemmOptions& options, const ConstTensor& bias = {});
void gemm_gelu_backward_prepare(Context& context, const ConstTensor& a, const ConstTensor& b, const ConstTensor& dx,
                                const GemmOptions& options);

}  // namespace tessera
