// What attention's CPU kernels share. Internal.
//
// All scores are kept transposed, [keys, queries]: each lane of a vector is a query, so that the softmax over keys
// needs no sum across lanes, and K and V enter the products as they lie in memory. Exponentials are powers of two: the
// factor scale * log2(e) goes into the copy of Q.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numbers>

#include "tensor/ops/attention/attention_kernels.h"
#include "tensor/ops/attention/attention_product.h"

namespace tessera {

struct AttentionSizes {
  int64_t queries;
  int64_t keys;
  int64_t q_heads;
  int64_t kv_heads;
  int64_t head_dim;
  DType compute;
  int64_t out_heads;   // of out and dout
  int64_t first_head;  // among them
};

inline AttentionSizes attention_sizes(const AttentionProblem& problem, const ConstTensor& q, const ConstTensor& k,
                                      const ConstTensor& out) {
  return {.queries = q.dim(1),
          .keys = k.dim(1),
          .q_heads = q.dim(0),
          .kv_heads = k.dim(0),
          .head_dim = q.dim(2),
          .compute = q.dtype(),
          .out_heads = out.dim(1),
          .first_head = problem.first_head};
}

// Bytes that each takes from the workspace.
int64_t attention_forward_workspace(int threads, const AttentionSizes& sizes);
int64_t attention_backward_workspace(int threads, const AttentionSizes& sizes);

namespace attention_detail {

constexpr int64_t kTile = kAttentionTile;

// Rows of K-major scratch are padded to this many elements, on every processor, so that the workspace does not depend
// on the width of its vectors.
constexpr int64_t kRowPadding = 16;
constexpr int64_t padded(int64_t head_dim) { return (head_dim + kRowPadding - 1) / kRowPadding * kRowPadding; }

constexpr int64_t tile_count(int64_t tokens) { return (tokens + kTile - 1) / kTile; }
constexpr int64_t tile_rows(int64_t tokens, int64_t tile) { return std::min(kTile, tokens - tile * kTile); }

// Scratch of one worker as a stack.
template <class A>
A* take(A*& scratch, int64_t elements) {
  A* taken = scratch;
  scratch += elements;
  return taken;
}

// Who may see whom in a pair of tiles. Padding and the lanes after the last query get document -2, keys that are
// padding -1: they are equal to nothing.
template <class A>
class Visibility {
 public:
  using S = Simd<A>;
  using Bits = typename S::Bits;

  Visibility(const AttentionProblem& problem, int64_t query_tile, int64_t queries)
      : keys_(problem.keys), window_(static_cast<Bits>(problem.window > 0 ? std::min(problem.window, kFar) : kFar)) {
    std::fill_n(document_, kTile, static_cast<Bits>(int64_t{-2}));
    std::fill_n(position_, kTile, Bits{0});
    for (int64_t i = 0; i < queries; ++i) {
      const int32_t document = problem.queries.document[query_tile * kTile + i];
      document_[i] = static_cast<Bits>(int64_t{document < 0 ? -2 : document});
      position_[i] = static_cast<Bits>(int64_t{problem.queries.position[query_tile * kTile + i]});
    }
  }

  // More than any distance between positions, and less than what the distance to a later key wraps around to.
  static constexpr int64_t kFar = int64_t{1} << 31;

  // x where the queries of lanes [lane, lane + kLanes) see that key, else `otherwise`. One comparison serves both ends
  // of the window: a later key's distance wraps around to a large number.
  typename S::Vector select(int64_t key, int64_t lane, typename S::Vector x, typename S::Vector otherwise) const {
    const int32_t document = keys_.document[key];
    const Bits key_document = static_cast<Bits>(int64_t{document < 0 ? -1 : document});
    const Bits key_position = static_cast<Bits>(int64_t{keys_.position[key]});
    const auto same = S::load(document_ + lane) == key_document;
    const auto near = S::load(position_ + lane) - key_position < window_;
    return (same & near) ? x : otherwise;
  }

 private:
  TokenPlaces keys_;
  Bits window_;
  alignas(kVectorBytes) Bits document_[kTile];
  alignas(kVectorBytes) Bits position_[kTile];
};

// Rows [rows, head_dim] in the accumulation dtype: the rows themselves, or a copy in `scratch`.
template <class T, class A = Acc<T>>
const A* accumulation_rows(const T* x, int64_t rows, int64_t head_dim, A* scratch) {
  if constexpr (std::is_same_v<T, A>) {
    return x;
  } else {
    for (int64_t i = 0; i < rows * head_dim; ++i) scratch[i] = static_cast<A>(x[i]);
    return scratch;
  }
}

// Overwrites columns [head_dim, kTile] with factor * x^T; lanes after the last row are zero.
template <class T, class A = Acc<T>>
void pack_columns(const T* x, int64_t stride, int64_t rows, int64_t head_dim, A factor, A* columns) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t d = 0; d < head_dim; ++d) columns[d * kTile + i] = factor * static_cast<A>(x[i * stride + d]);
  }
  if (rows == kTile) return;
  for (int64_t d = 0; d < head_dim; ++d) std::fill(columns + d * kTile + rows, columns + (d + 1) * kTile, A{0});
}

// Overwrites x [rows, head_dim] (with that stride) with columns^T, each row times its factor.
template <class T, class A = Acc<T>>
void unpack_columns(const A* columns, int64_t rows, int64_t head_dim, const A* factor, T* x, int64_t stride) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t d = 0; d < head_dim; ++d) x[i * stride + d] = static_cast<T>(factor[i] * columns[d * kTile + i]);
  }
}

}  // namespace attention_detail
}  // namespace tessera
