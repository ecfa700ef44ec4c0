// Heads of a tensor, and how many are done at once: what the exchanges share.
#pragma once

#include "model/shape/context_exchange.h"
#include "tensor/ops/attention/attention.h"

namespace tessera {

// Keys and values, or their gradients: [heads, rows, head_dim] each.
struct KeyValues {
  Tensor k, v;

  // Memory for the most rows that may come, and the view of some of them.
  static KeyValues take(Arena& arena, int64_t heads, int64_t rows, int64_t head_dim, DType dtype) {
    const Shape shape{heads, rows, head_dim};
    return {arena.take(shape, dtype), arena.take(shape, dtype)};
  }
  KeyValues with_rows(int64_t rows) const { return {view(k, rows), view(v, rows)}; }

 private:
  static Tensor view(const Tensor& memory, int64_t rows) {
    return {memory.data(), {memory.dim(0), rows, memory.dim(2)}, memory.dtype(), memory.device()};
  }
};

// Head h of [heads, rows, head_dim] as a matrix.
inline Tensor head_of(const Tensor& heads, int64_t h) {
  return heads.rows(h, h + 1).reshape({heads.dim(1), heads.dim(2)});
}
inline ConstTensor head_of(const ConstTensor& heads, int64_t h) {
  return heads.rows(h, h + 1).reshape({heads.dim(1), heads.dim(2)});
}

// Key/value heads [begin, end) of a rank, which are done together, and their query heads.
struct HeadGroup {
  HeadGroup(const ExchangeShape& shape, int64_t g, int64_t heads)
      : begin(g * heads),
        end(begin + heads),
        q_begin(begin * shape.queries_per_key()),
        q_end(end * shape.queries_per_key()) {}
  int64_t begin, end, q_begin, q_end;

  int64_t size() const { return end - begin; }
  int64_t q_size() const { return q_end - q_begin; }

  template <class AnyTensor>
  AnyTensor queries_in(const AnyTensor& x) const {
    return x.rows(q_begin, q_end);
  }
  template <class AnyTensor>
  AnyTensor keys_in(const AnyTensor& x) const {
    return x.rows(begin, end);
  }
  // For outputs that have all query heads.
  AttentionProblem problem(const AttentionProblem& all_heads) const {
    AttentionProblem problem = all_heads;
    problem.first_head = q_begin;
    return problem;
  }
};

}  // namespace tessera
