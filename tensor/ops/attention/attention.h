// Tiled softmax attention with documents, positions and windows: never holds a tokens x tokens matrix.
//
//   s_ij = scale * q_i . k_j          where key j is visible to query i, else minus infinity
//   o_i  = sum_j softmax_j(s_ij) v_j,   lse_i = log sum_j exp(s_ij)
//
// Key j is visible to query i when both are in the same document (>= 0), position_j <= position_i, and, with a window
// w > 0, position_i - position_j < w. A query that sees nothing gets o = 0 and lse = -infinity. Padding has document
// -1.
//
// The tiling and online softmax follow Dao, Fu, Ermon, Rudra and Re, "FlashAttention", 2022, and Dao,
// "FlashAttention-2", 2023. The key tiles that a query tile looks at are an input: a context plan, a window, and later
// a retriever choose them. (out, lse) of two disjoint sets of keys merge exactly, which is what context parallelism
// needs.
#pragma once

#include <cstdint>
#include <span>

#include "tensor/context/context.h"
#include "tensor/tensor.h"

namespace tessera {

// Rows of a query tile and of a key tile.
constexpr int64_t kAttentionTile = 64;

// Position inside its document and document id of each token; spans of equal length.
struct TokenPlaces {
  std::span<const int32_t> position;
  std::span<const int32_t> document;
};

// For each query tile, the key tiles to look at, in ascending order (compressed rows). `full` marks pairs in which
// every query sees every key, so that no mask is computed. Views into memory that the caller owns.
struct AttentionTiles {
  std::span<const int32_t> offset;    // [query tiles + 1], into the two below
  std::span<const int32_t> key_tile;  // [pairs]
  std::span<const uint8_t> full;      // [pairs]
};

// Elements needed in the arrays for `queries` and `keys` tokens in the worst case: {offset, key_tile and full}. The
// first counts scratch of make_attention_tiles too, so the view it returns is shorter than the array.
struct AttentionTileCapacity {
  int64_t offsets;
  int64_t pairs;
};
AttentionTileCapacity attention_tile_capacity(int64_t queries, int64_t keys);

// All pairs of tiles with at least one visible (query, key), judged by the range of positions of each document in each
// tile: exact where these have no gaps; else a pair may turn out empty, but none is missed. Writes into the given
// arrays, sized by attention_tile_capacity, and returns views of what it wrote.
AttentionTiles make_attention_tiles(const TokenPlaces& queries, const TokenPlaces& keys, int64_t window,
                                    std::span<int32_t> offset, std::span<int32_t> key_tile, std::span<uint8_t> full);

// Visible (query, key) pairs, from the actual mask, when queries and keys are the same tokens and every document's
// tokens before a query are present: sum over tokens of min(position + 1, window).
int64_t attention_pairs(const TokenPlaces& places, int64_t window);

// FLOPs of one head for that many pairs: forward 4 * pairs * head_dim, backward 2.5 times that (five products).
int64_t attention_forward_flops(int64_t pairs, int64_t head_dim);
int64_t attention_backward_flops(int64_t pairs, int64_t head_dim);

struct AttentionProblem {
  double scale = 1.0;  // 1/sqrt(head_dim); positive
  int64_t window = 0;  // 0: none
  TokenPlaces queries;
  TokenPlaces keys;
  AttentionTiles tiles;
  int64_t first_head = 0;  // of out's heads: these are [first_head, first_head + q_heads)
  ConstTensor sent{};      // on a device: these lists in its memory, by send_attention_lists()
};

// Kernels on a device read the lists in its memory, where they are put once for all calls that use them: queues their
// copy into `memory`, I32 [attention_list_words()] or longer, which becomes problem.sent. What is sent is what the
// problem's spans hold now; these must stay too, since calls check them. On a CPU there is nothing to send.
void send_attention_lists(const Context& context, AttentionProblem& problem, const Tensor& memory);

// Elements of that memory in the worst case; 0 on a CPU.
int64_t attention_list_words(Device device, int64_t queries, int64_t keys);

// q [q_heads, queries, head_dim], k and v [kv_heads, keys, head_dim], kv_heads dividing q_heads ->
// overwrites these heads of out [queries, all heads, head_dim], and lse [q_heads, queries] (accumulation dtype). So
// heads can be done in groups, whose q, k, v and lse are parts of the whole tensors' memory.
// Workspace: attention_workspace().
void attention(Context& context, const AttentionProblem& problem, const ConstTensor& q, const ConstTensor& k,
               const ConstTensor& v, const Tensor& out, const Tensor& lse);

// dout and out [queries, all heads, head_dim], lse [q_heads, queries] -> overwrites dq [q_heads, queries, head_dim], dk
// and dv [kv_heads, keys, head_dim] (compute dtype; sums over the query heads of a group and over tiles are kept in the
// accumulation dtype and rounded once). None may alias an input. out and lse may be of more keys than these (merged):
// dq is then these keys' part of the sum. Workspace: attention_workspace().
//
// On the CPU threads share the work by (head, query tile) forwards, and backwards by (key/value head, group of tiles
// without a key tile in common), so that one document alone is as parallel as it has key/value heads.
void attention_backward(Context& context, const AttentionProblem& problem, const ConstTensor& q, const ConstTensor& k,
                        const ConstTensor& v, const ConstTensor& out, const ConstTensor& lse, const ConstTensor& dout,
                        const Tensor& dq, const Tensor& dk, const Tensor& dv);

// Bytes that either takes from the workspace, whatever the tiles (the larger of the two).
int64_t attention_workspace(Target target, int64_t queries, int64_t keys, int64_t q_heads, int64_t kv_heads,
                            int64_t head_dim, DType compute);

}  // namespace tessera
