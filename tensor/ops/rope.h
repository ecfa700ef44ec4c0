// The step between the fused QKV projection and attention: split into heads, and rotate (RoPE) where the model asks.
//
// Rotary position embedding (Su et al. 2021), halves convention (GPT-NeoX, Llama in Hugging Face format): with
// f_i = theta^(-2i/head_dim) and angle a = position * f_i, for i < head_dim/2
//   y[i] = x[i] cos a - x[i + head_dim/2] sin a
//   y[i + head_dim/2] = x[i + head_dim/2] cos a + x[i] sin a
// Its backward is the rotation by -a. Angles are computed in double and rounded once to the accumulation dtype.
//
// The projection's rows are ordered [kv_head, q_per_kv + 2, head_dim]: q_per_kv query heads, then their key, then their
// value. Attention wants head-major operands, so that one head is one contiguous matrix.
#pragma once

#include <span>

#include "tensor/context/context.h"
#include "tensor/tensor.h"

namespace tessera {

struct HeadLayout {
  int64_t kv_heads = 0;  // on this rank
  int64_t q_per_kv = 0;
  int64_t head_dim = 0;
  int64_t q_heads() const { return kv_heads * q_per_kv; }
  int64_t width() const { return kv_heads * (q_per_kv + 2) * head_dim; }  // columns of the fused projection
};

// Cosines and sines of the angles of the given positions. Computed once per microbatch, used by every layer.
// position [tokens]; overwrites table [tokens, head_dim] (accumulation dtype): head_dim/2 cosines, then head_dim/2
// sines.
void rope_table(const Context& context, std::span<const int32_t> position, double theta, const Tensor& table);

// qkv [tokens, width] -> overwrites q [q_heads, tokens, head_dim], k and v [kv_heads, tokens, head_dim]; q and k are
// rotated by the table's angles (table empty: not rotated). Query head h belongs to kv head h / q_per_kv.
void split_heads(const Context& context, const ConstTensor& qkv, const HeadLayout& layout, const ConstTensor& table,
                 const Tensor& q, const Tensor& k, const Tensor& v);

// The gradient of split_heads: overwrites dqkv [tokens, width] from dq, dk, dv (shapes of q, k, v).
void split_heads_backward(const Context& context, const ConstTensor& dq, const ConstTensor& dk, const ConstTensor& dv,
                          const HeadLayout& layout, const ConstTensor& table, const Tensor& dqkv);

}  // namespace tessera
