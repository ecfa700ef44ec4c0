// A short causal convolution over the tokens of a segment, one filter for each channel, with SiLU behind it: what gives
// the queries, keys and values of a recurrent mixer a sight of their neighbours (Gu and Dao, "Mamba", 2023; Yang, Kautz
// and Hatamizadeh, "Gated Delta Networks", 2024).
//
//   p_t = sum over j < width of weight_j x_{t - (width - 1) + j},   y_t = silu(p_t),   silu(p) = p / (1 + exp(-p))
//
// for each channel, where x before a segment is zero, or the halo: the last width - 1 tokens of what came before it on
// another rank. weight_{width - 1} belongs to the token itself (the order of a framework's depthwise convolution).
// Computed in the accumulation dtype, rounded once.
#pragma once

#include "tensor/context/context.h"
#include "tensor/ops/segments.h"
#include "tensor/tensor.h"

namespace tessera {

constexpr int64_t kMostConvolutionWidth = 8;

// x [tokens, channels/tp], weight [channels/tp, width] with width of 1 to 8, halo [rows, width - 1, channels/tp] or empty:
// the rows that segments.initial names, in token order -> overwrites y [tokens, channels/tp]. Nothing aliases.
// 2 width FLOPs for each element; moves each element of x and y once.
void short_convolution(const Context& context, const TokenSegments& segments, const ConstTensor& x,
                       const ConstTensor& weight, const ConstTensor& halo, const Tensor& y);

// dy [tokens, channels/tp] -> overwrites dx [tokens, channels/tp] and the named rows of dhalo (as halo; the rank that
// holds those tokens adds them to its dx); accumulates into dweight [channels/tp, width] (accumulation dtype). Nothing
// aliases. Workspace: short_convolution_backward_workspace(). On the CPU threads share the channels.
void short_convolution_backward(Context& context, const TokenSegments& segments, const ConstTensor& dy,
                                const ConstTensor& x, const ConstTensor& weight, const ConstTensor& halo,
                                const Tensor& dx, const Tensor& dhalo, const Tensor& dweight);

// Bytes: nothing on a CPU; on a GPU sums of dweight for a fixed number of parts of the tokens.
int64_t short_convolution_backward_workspace(const Target& target, int64_t channels, int64_t width, DType compute);

}  // namespace tessera
