// Attention over two disjoint sets of keys, merged into attention over both: the same formula as one softmax.
//
//   lse = log(exp(lse_1) + exp(lse_2)),   o = exp(lse_1 - lse) o_1 + exp(lse_2 - lse) o_2
//
// A part in which a query sees nothing has lse = -infinity and leaves the other as it is (Milakov and Gimelshein,
// "Online normalizer calculation for softmax", 2018; Liu, Zaharia and Abbeel, "Ring Attention", 2023).
#pragma once

#include "tensor/context/context.h"
#include "tensor/tensor.h"

namespace tessera {

// part_out [queries, heads, head_dim] (compute dtype), part_lse [heads, queries] (accumulation dtype) are merged into
// out [queries, heads, head_dim] and lse [heads, queries], both of the accumulation dtype; nothing aliases. An empty
// merge has out = 0 and lse = -infinity: attention_merge_start() makes one.
void attention_merge(const Context& context, const ConstTensor& part_out, const ConstTensor& part_lse,
                     const Tensor& out, const Tensor& lse);
void attention_merge_start(const Context& context, const Tensor& out, const Tensor& lse);

}  // namespace tessera
