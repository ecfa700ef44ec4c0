// What the delta rule's CPU kernels share: one chunk of one key head and one of its value heads as matrices of the
// accumulation dtype in one worker's scratch, rows padded to whole vectors. Internal.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "tensor/context/threads.h"
#include "tensor/ops/attention/attention_product.h"
#include "tensor/ops/delta_rule/delta_rule_kernels.h"

namespace tessera::delta_rule_detail {

using attention_detail::RowMatrix;
using attention_detail::tile_product;

// Rows are padded to this many elements on every processor, so that the workspace does not depend on its vectors.
constexpr int64_t kRowPadding = 16;
constexpr int64_t padded(int64_t columns) { return (columns + kRowPadding - 1) / kRowPadding * kRowPadding; }

// Rows of a block of a triangle: what is inside it is done row by row, the rest by products.
constexpr int64_t kTriangleBlock = 12;

// Hands out parts of a worker's scratch, or only counts them when there is none.
template <class A>
class Cursor {
 public:
  explicit Cursor(A* memory) : memory_(memory) {}
  A* take(int64_t rows, int64_t columns) {
    A* taken = memory_ == nullptr ? nullptr : memory_ + used_;
    used_ += padded(rows * columns);
    return taken;
  }
  int64_t used() const { return used_; }

 private:
  A* memory_;
  int64_t used_ = 0;
};

// Overwrites to [rows, stride] with factor * from [rows, columns], zero behind the columns.
template <class T, class A>
void load_rows(const T* from, int64_t from_stride, int64_t rows, int64_t columns, A factor, A* to, int64_t stride) {
  for (int64_t r = 0; r < rows; ++r) {
    const T* x = from + r * from_stride;
    A* y = to + r * stride;
#pragma omp simd
    for (int64_t i = 0; i < columns; ++i) y[i] = factor * static_cast<A>(x[i]);
    std::fill(y + columns, y + stride, A(0));
  }
}

template <class T, class A>
void store_rows(const A* from, int64_t stride, int64_t rows, int64_t columns, A factor, T* to, int64_t to_stride) {
  for (int64_t r = 0; r < rows; ++r) {
    const A* x = from + r * stride;
    T* y = to + r * to_stride;
#pragma omp simd
    for (int64_t i = 0; i < columns; ++i) y[i] = round_to<T>(factor * x[i]);
  }
}

// Row r of y is factor[r] times row r of x, which may be y.
template <class A>
void scale_rows(const A* x, const A* factor, int64_t rows, int64_t columns, A* y) {
  for (int64_t r = 0; r < rows; ++r) {
    const A by = factor[r];
#pragma omp simd
    for (int64_t i = 0; i < columns; ++i) y[r * columns + i] = by * x[r * columns + i];
  }
}

// Overwrites to [columns, to_stride] with the transpose of from [rows, stride]; zero behind the rows.
template <class A>
void transpose(const A* from, int64_t rows, int64_t stride, int64_t columns, A* to, int64_t to_stride) {
  constexpr int64_t kBlock = 16;  // a line of `to` in F32, and as many lines of `from`
  for (int64_t r = 0; r < to_stride; r += kBlock) {
    const int64_t count = std::clamp<int64_t>(rows - r, 0, kBlock);
    for (int64_t c = 0; c < columns; ++c) {
      A* y = to + c * to_stride + r;
      for (int64_t i = 0; i < count; ++i) y[i] = from[(r + i) * stride + c];
      std::fill(y + count, y + kBlock, A(0));
    }
  }
}

// C [m, n] (+)= A B, or A^T B with A [k, m].
template <class A>
void product(int64_t m, int64_t n, int64_t k, const A* a, int64_t a_stride, Transpose transposed, const A* b, A* c,
             Write write) {
  tile_product<A>(m, n, k, {a, a_stride, transposed}, {b, n}, {c, n}, write);
}

// y [rows, columns] += L x, L [rows, stride] lower triangular with zeros above the diagonal.
template <class A>
void add_lower_product(const A* lower, int64_t stride, int64_t rows, const A* x, int64_t columns, A* y) {
  for (int64_t r = 0; r < rows; r += kTriangleBlock) {
    const int64_t end = std::min(rows, r + kTriangleBlock);
    product(end - r, columns, end, lower + r * stride, stride, Transpose::No, x, y + r * columns, Write::Accumulate);
  }
}

// y [rows, columns] += L^T x.
template <class A>
void add_upper_product(const A* lower, int64_t stride, int64_t rows, const A* x, int64_t columns, A* y) {
  for (int64_t r = 0; r < rows; r += kTriangleBlock) {
    const int64_t end = std::min(rows, r + kTriangleBlock);
    product(end - r, columns, rows - r, lower + r * stride + r, stride, Transpose::Yes, x + r * columns,
            y + r * columns, Write::Accumulate);
  }
}

template <class A>
void add_row(A factor, const A* x, int64_t columns, A* y) {
#pragma omp simd
  for (int64_t i = 0; i < columns; ++i) y[i] += factor * x[i];
}

// x [rows, columns] becomes (I - N)^-1 x, N [rows, stride] strictly lower triangular.
template <class A>
void solve_lower(const A* n, int64_t stride, int64_t rows, int64_t columns, A* x) {
  for (int64_t r = 0; r < rows; r += kTriangleBlock) {
    const int64_t end = std::min(rows, r + kTriangleBlock);
    if (r > 0)
      product(end - r, columns, r, n + r * stride, stride, Transpose::No, x, x + r * columns, Write::Accumulate);
    for (int64_t i = r + 1; i < end; ++i) {
      for (int64_t j = r; j < i; ++j) add_row(n[i * stride + j], x + j * columns, columns, x + i * columns);
    }
  }
}

// x becomes (I - N^T)^-1 x.
template <class A>
void solve_upper(const A* n, int64_t stride, int64_t rows, int64_t columns, A* x) {
  for (int64_t r = (rows - 1) / kTriangleBlock * kTriangleBlock; r >= 0; r -= kTriangleBlock) {
    const int64_t end = std::min(rows, r + kTriangleBlock);
    if (end < rows)
      product(end - r, columns, rows - end, n + end * stride + r, stride, Transpose::Yes, x + end * columns,
              x + r * columns, Write::Accumulate);
    for (int64_t i = end - 2; i >= r; --i) {
      for (int64_t j = i + 1; j < end; ++j) add_row(n[j * stride + i], x + j * columns, columns, x + i * columns);
    }
  }
}

// What one worker holds of a chunk, common to forward and backward. `columns`: of a state and of all that has rows of
// values; more than value_dim where the rule carries a second right-hand side.
template <class T>
struct ChunkMatrices {
  using A = Acc<T>;

  ChunkMatrices(const DeltaRuleSizes& s, int64_t state_columns, Cursor<A>& cursor)
      : sizes(s), stride(padded(s.chunk)), key(padded(s.key_dim)), columns(state_columns) {
    q = cursor.take(s.chunk, key);
    k = cursor.take(s.chunk, key);
    k_columns = cursor.take(s.key_dim, stride);
    qk = cursor.take(s.chunk, stride);
    kk = cursor.take(s.chunk, stride);
    decay = cursor.take(s.chunk, stride);
    scores = cursor.take(s.chunk, stride);
    system = cursor.take(s.chunk, stride);
    since_start = cursor.take(1, s.chunk);
    to_end = cursor.take(1, s.chunk);
    error = cursor.take(s.chunk, columns);
    update = cursor.take(s.chunk, columns);
    scaled = cursor.take(s.chunk, columns);
  }

  // Chunk of key head `head` that starts at token `first`: Q times scale, K, Q K^T and K K^T.
  void load_keys(const T* all_q, const T* all_k, double scale, int64_t head, int64_t first, int64_t tokens) {
    rows = tokens;
    const int64_t at = (head * sizes.tokens + first) * sizes.key_dim;
    load_rows(all_q + at, sizes.key_dim, rows, sizes.key_dim, static_cast<A>(scale), q, key);
    load_rows(all_k + at, sizes.key_dim, rows, sizes.key_dim, A(1), k, key);
    transpose(k, rows, key, sizes.key_dim, k_columns, stride);
    product(rows, stride, sizes.key_dim, q, key, Transpose::No, k_columns, qk, Write::Overwrite);
    product(rows, stride, sizes.key_dim, k, key, Transpose::No, k_columns, kk, Write::Overwrite);
  }

  // The gates of a value head: decay = G, since_start = g, to_end = w, scores = Tril(Q K^T . G), and
  // system = -diag(beta) StrictTril(K K^T . G).
  void load_gates(const A* log_decay, const A* gate) {
    beta = gate;
    A since = A(1);
    for (int64_t r = 0; r < rows; ++r) {
      const A a = std::exp(log_decay[r]);
      since_start[r] = since *= a;
      A* row = decay + r * stride;
      const A* before = row - stride;
#pragma omp simd
      for (int64_t i = 0; i < r; ++i) row[i] = before[i] * a;
      row[r] = A(1);
      std::fill(row + r + 1, row + stride, A(0));
      A *score = scores + r * stride, *left = system + r * stride;
      const A *q_row = qk + r * stride, *k_row = kk + r * stride;
      const A factor = -beta[r];
#pragma omp simd
      for (int64_t i = 0; i < stride; ++i) {
        score[i] = q_row[i] * row[i];
        left[i] = factor * (k_row[i] * row[i]);
      }
      left[r] = A(0);
    }
    std::copy_n(decay + (rows - 1) * stride, rows, to_end);
  }

  // error = E, update = U. state may be null: zero. values [rows, value_dim].
  void solve(const T* values, const A* state) {
    load_rows(values, sizes.value_dim, rows, sizes.value_dim, A(1), error, columns);
    if (state != nullptr) {
      product(rows, columns, sizes.key_dim, k, key, Transpose::No, state, scaled, Write::Overwrite);
      for (int64_t r = 0; r < rows; ++r) add_row(-since_start[r], scaled + r * columns, columns, error + r * columns);
    }
    scale_rows(error, beta, rows, columns, update);
    solve_lower(system, stride, rows, columns, update);
  }

  DeltaRuleSizes sizes;
  int64_t stride, key, columns;          // elements of a row: of tokens, of a key, of values
  int64_t rows = 0;                      // tokens of this chunk
  A *q, *k;                              // [rows, key]
  A* k_columns;                          // [key_dim, stride]
  A *qk, *kk, *decay, *scores, *system;  // [rows, stride]
  A *since_start, *to_end;               // [rows]
  A *error, *update, *scaled;            // [rows, columns]
  const A* beta = nullptr;               // [rows]
};

// Runs task(key_head, segment, worker) for all of both.
template <class F>
void for_segments(const Context& context, const DeltaRuleProblem& problem, int64_t key_heads, F&& task) {
  const int64_t segments = problem.segments.count();
  parallel_tasks(context, segments * key_heads,
                 [&](int64_t index, int worker) { task(index % key_heads, index / key_heads, worker); });
}

// Elements of a worker's scratch in the forward scan with so many columns in the state, and in backward.
int64_t scan_elements(const DeltaRuleSizes& sizes, int64_t columns);
int64_t backward_elements(const DeltaRuleSizes& sizes);

}  // namespace tessera::delta_rule_detail
