// Normalisation over the last dim.
//
// RMSNorm (Zhang and Sennrich 2019):   y = x * r * w,              r = 1 / sqrt(mean(x^2) + eps)
// LayerNorm (Ba, Kiros, Hinton 2016):  y = (x - m) * r * w + b,    m = mean(x), r = 1 / sqrt(var(x) + eps)
//
// Statistics are kept and computed in the accumulation dtype.
#pragma once

#include "tensor/context/context.h"
#include "tensor/tensor.h"

namespace tessera {

// x [tokens, hidden], weight [hidden] -> overwrites y [tokens, hidden] and rstd [tokens] (accumulation dtype).
void rms_norm(const Context& context, const ConstTensor& x, const ConstTensor& weight, double epsilon, const Tensor& y,
              const Tensor& rstd);

// As rms_norm, with bias [hidden]; overwrites mean [tokens] and rstd [tokens] too.
void layer_norm(const Context& context, const ConstTensor& x, const ConstTensor& weight, const ConstTensor& bias,
                double epsilon, const Tensor& y, const Tensor& mean, const Tensor& rstd);

// Gradients in one pass over dy and x, since every one of them reads both.
//
// dy, x [tokens, hidden] (compute dtype). residual_gradient [tokens, hidden] is added to the input's gradient: the
// gradient that reaches x past the norm (empty: none). Overwrites dx [tokens, hidden]; dx may be x itself, dy or
// residual_gradient. Accumulates into dweight [hidden] (accumulation dtype), and dbias [hidden].
// Workspace: norm_backward_workspace().
void rms_norm_backward(Context& context, const ConstTensor& dy, const ConstTensor& x, const ConstTensor& weight,
                       const ConstTensor& rstd, const ConstTensor& residual_gradient, const Tensor& dx,
                       const Tensor& dweight);
void layer_norm_backward(Context& context, const ConstTensor& dy, const ConstTensor& x, const ConstTensor& weight,
                         const ConstTensor& mean, const ConstTensor& rstd, const ConstTensor& residual_gradient,
                         const Tensor& dx, const Tensor& dweight, const Tensor& dbias);

// Bytes that a backward takes from the workspace: one row of partial sums of dweight (sums 1: RMSNorm) or of dweight
// and dbias (sums 2: LayerNorm) for each fixed block of tokens or thread, in the accumulation dtype.
int64_t norm_backward_workspace(Target target, int64_t hidden, DType compute, int64_t sums);

}  // namespace tessera
