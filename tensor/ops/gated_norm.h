// RMSNorm of each head, times a gate: what stands between a recurrent mixer and its output projection.
//
//   y = n * w * silu(g),   n = x * r,   r = 1 / sqrt(mean(x^2) + eps),   silu(g) = g / (1 + exp(-g))
//
// as in Yang, Kautz and Hatamizadeh, "Gated Delta Networks", 2024. Computed in the accumulation dtype, rounded once.
#pragma once

#include "tensor/context/context.h"
#include "tensor/tensor.h"

namespace tessera {

// x and gate [tokens, heads/tp, dim], weight [dim], the same for all heads -> overwrites y [tokens, heads/tp, dim] and
// rstd [tokens, heads/tp] (accumulation dtype). y may be x or gate.
void gated_rms_norm(const Context& context, const ConstTensor& x, const ConstTensor& gate, const ConstTensor& weight,
                    double epsilon, const Tensor& y, const Tensor& rstd);

// dy [tokens, heads/tp, dim] -> overwrites dx and dgate, of which each may be x, gate or dy (not the same); accumulates
// into dweight [dim] (accumulation dtype) the sum over these heads. Workspace: gated_rms_norm_backward_workspace().
void gated_rms_norm_backward(Context& context, const ConstTensor& dy, const ConstTensor& x, const ConstTensor& gate,
                             const ConstTensor& weight, const ConstTensor& rstd, const Tensor& dx, const Tensor& dgate,
                             const Tensor& dweight);

// Bytes: a row of partial sums of dweight for each of a fixed number of blocks of rows, or two for each thread.
int64_t gated_rms_norm_backward_workspace(const Target& target, int64_t dim, DType compute);

}  // namespace tessera
