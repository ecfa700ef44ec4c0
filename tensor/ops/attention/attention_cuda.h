// What attention's CUDA kernels share. Internal to tensor/ops/attention_*_cuda.cu.
#pragma once

#include "tensor/kernels/kernel.h"
#include "tensor/ops/attention/attention.h"

namespace tessera::cuda {

// The problem as kernels see it: sizes, and the lists of attention.h in device memory.
struct AttentionInput {
  int64_t queries, keys;
  int32_t q_heads, kv_heads, head_dim;
  int64_t out_stride;  // elements from a row of out and dout to the next; their pointers are to the first head's
  int32_t query_tiles, key_tiles;
  double scale;
  uint32_t window;  // positions seen, the query's own included; more than there are when there is no window
  const int32_t *offset, *key_tile;
  const uint8_t* full;
  const int32_t *query_position, *query_document, *key_position, *key_document;
};

// Position and document of a token, with documents of their own for what sees and is seen by nothing: padding, and
// tokens past the end.
struct Place {
  int32_t position, document;
};
__device__ __forceinline__ Place query_place(const AttentionInput& in, int64_t i) {
  if (i >= in.queries || in.query_document[i] < 0) return {0, -1};
  return {in.query_position[i], in.query_document[i]};
}
__device__ __forceinline__ Place key_place(const AttentionInput& in, int64_t j) {
  if (j >= in.keys || in.key_document[j] < 0) return {0, -2};
  return {in.key_position[j], in.key_document[j]};
}
// A negative distance is a large unsigned one.
__device__ __forceinline__ bool visible(const AttentionInput& in, Place query, Place key) {
  return query.document == key.document && static_cast<uint32_t>(query.position - key.position) < in.window;
}

enum class PairKind : uint8_t { None, Masked, Full };

// Whether query tile `i` looks at key tile `j`: a search in its ascending list.
__device__ __forceinline__ PairKind pair_kind(const AttentionInput& in, int32_t i, int32_t j) {
  int32_t low = in.offset[i], high = in.offset[i + 1];
  const int32_t end = high;
  while (low < high) {
    const int32_t middle = low + (high - low) / 2;
    if (in.key_tile[middle] < j)
      low = middle + 1;
    else
      high = middle;
  }
  if (low == end || in.key_tile[low] != j) return PairKind::None;
  return in.full[low] != 0 ? PairKind::Full : PairKind::Masked;
}

struct AttentionTensors {
  ConstTensor q, k, v, out, lse, dout;
  Tensor delta;  // [q_heads, queries], accumulation dtype: dout . out
  Tensor dq, dk, dv;
};

// Any dtype and head size: threads that add up alone. For proofs in F64, for F32, and for what the others leave.
void attention_plain(const Context& context, const AttentionInput& in, const ConstTensor& q, const ConstTensor& k,
                     const ConstTensor& v, const Tensor& out, const Tensor& lse);
void attention_backward_plain(const Context& context, const AttentionInput& in, const AttentionTensors& t);

// BF16 on tensor cores (mma.sync), head sizes that are multiples of 8 up to 256.
void attention_mma(const Context& context, const AttentionInput& in, const ConstTensor& q, const ConstTensor& k,
                   const ConstTensor& v, const Tensor& out, const Tensor& lse);
void attention_backward_mma(const Context& context, const AttentionInput& in, const AttentionTensors& t);
// Bytes of shared memory that the larger of the two needs of a block.
int64_t attention_mma_shared_bytes(int64_t head_dim);

}  // namespace tessera::cuda
