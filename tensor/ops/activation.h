// Activation functions of the MLP.
//
// SwiGLU (Shazeer 2020): y = silu(g) * u, silu(g) = g / (1 + exp(-g)).
// GELU, tanh form (Hendrycks and Gimpel 2016, as in GPT-2): y = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
// Computed in the accumulation dtype, rounded once.
#pragma once

#include "tensor/context/context.h"
#include "tensor/tensor.h"

namespace tessera {

// gate_up [tokens, ffn, 2] (gate and up side by side, as the fused weight [ffn, 2, hidden] makes them) -> overwrites
// y [tokens, ffn].
void swiglu(const Context& context, const ConstTensor& gate_up, const Tensor& y);
// dy [tokens, ffn] -> overwrites dgate_up [tokens, ffn, 2], which may be gate_up itself.
void swiglu_backward(const Context& context, const ConstTensor& dy, const ConstTensor& gate_up, const Tensor& dgate_up);

// x -> overwrites y, same shape.
void gelu(const Context& context, const ConstTensor& x, const Tensor& y);
// Overwrites dx, which may be x or dy.
void gelu_backward(const Context& context, const ConstTensor& dy, const ConstTensor& x, const Tensor& dx);

}  // namespace tessera
