// What the delta rule's CUDA kernels share. A block does the chunks of one segment and key head one after the other; its
// matrices lie in its own part of the workspace, where the second cache holds them, and what there is one of for each
// token lies in shared memory. Any dtype and head size; all sums have a fixed order. Internal.
#pragma once

#include "tensor/kernels/block_sum.h"
#include "tensor/kernels/kernel.h"
#include "tensor/ops/delta_rule/delta_rule_kernels.h"
#include "tensor/ops/segments_cuda.h"

namespace tessera::cuda {

constexpr int kDeltaRuleThreads = 256;
constexpr int kDeltaRuleRows = static_cast<int>(kMostDeltaRuleChunk);

struct DeltaRuleView {
  int32_t tokens, key_heads, value_heads, key_dim, value_dim, chunk, group;
  double scale;
  SegmentView segments;

  __device__ int64_t state_size() const { return int64_t{key_dim} * value_dim; }
  __device__ int64_t kept_row(int64_t value_head, int64_t first) const {
    return value_head * (tokens / chunk) + first / chunk - 1;
  }
};
DeltaRuleView delta_rule_view(const DeltaRuleProblem& problem, const DeltaRuleInput& input);

// Blocks that share the segments of a key head: as many as fill a large device, but no more than there are chunks. The
// same on all devices, so that the workspace is too.
int64_t delta_rule_blocks(const DeltaRuleSizes& sizes);
// Elements of a block's part of the workspace in backward.
int64_t delta_rule_backward_elements(const DeltaRuleSizes& sizes);

// put(i, j, sum over p < k of left(i, p) * right(p, j)) for i < m and j < n. A thread has 4 x 4 sums whose columns lie a
// quarter of a row apart, so that neighbours read neighbours. Others see what put writes after the next barrier.
template <class A, class Left, class Right, class Put>
__device__ __forceinline__ void block_product(int m, int n, int k, Left left, Right right, Put put) {
  constexpr int kTile = 4;
  const int across = (n + kTile - 1) / kTile, down = (m + kTile - 1) / kTile;
  for (int tile = static_cast<int>(threadIdx.x); tile < across * down; tile += static_cast<int>(blockDim.x)) {
    const int i = tile / across * kTile, j = tile % across;
    A sum[kTile][kTile] = {};
    for (int p = 0; p < k; ++p) {
      A x[kTile], y[kTile];
      for (int a = 0; a < kTile; ++a) x[a] = left(i + a < m ? i + a : m - 1, p);
      for (int b = 0; b < kTile; ++b) y[b] = right(p, j + b * across < n ? j + b * across : n - 1);
      for (int a = 0; a < kTile; ++a)
        for (int b = 0; b < kTile; ++b) sum[a][b] += x[a] * y[b];
    }
    for (int a = 0; a < kTile; ++a)
      for (int b = 0; b < kTile; ++b)
        if (i + a < m && j + b * across < n) put(i + a, j + b * across, sum[a][b]);
  }
}

// f(i) for i < count, shared by the threads.
template <class F>
__device__ __forceinline__ void block_elements(int64_t count, F f) {
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) f(i);
}

// The sum of f(i) over i < n, the same in all lanes of a warp.
template <class A, class F>
__device__ __forceinline__ A warp_dot(int n, F f) {
  A sum = A(0);
  for (int i = static_cast<int>(threadIdx.x % 32); i < n; i += 32) sum += f(i);
  return warp_sum(sum);
}

// One number for each token of a chunk.
template <class A>
struct DeltaRuleRows {
  A decay[kDeltaRuleRows], since_start[kDeltaRuleRows], to_end[kDeltaRuleRows], beta[kDeltaRuleRows];
  A sums[kDeltaRuleRows];
};

// The names are those of the CPU's ChunkMatrices (delta_rule_cpu.h).
template <class T>
struct DeltaRuleChunk {
  using A = Acc<T>;

  DeltaRuleView in;
  int columns;  // of a state
  DeltaRuleRows<A>* each;
  A *q, *k, *qk, *kk, *decay, *scores, *system, *error, *update;
  int rows;

  static constexpr int64_t elements(int64_t chunk, int64_t key_dim, int64_t columns) {
    return 2 * chunk * key_dim + 5 * chunk * chunk + 2 * chunk * columns;
  }

  // Lays the matrices into `memory` and returns what is behind them.
  __device__ A* place(A* memory) {
    const int64_t key = int64_t{in.chunk} * in.key_dim, square = int64_t{in.chunk} * in.chunk;
    q = memory;
    k = q + key;
    qk = k + key;
    kk = qk + square;
    decay = kk + square;
    scores = decay + square;
    system = scores + square;
    error = system + square;
    update = error + int64_t{in.chunk} * columns;
    return update + int64_t{in.chunk} * columns;
  }

  __device__ void load_keys(const T* all_q, const T* all_k, int32_t head, int32_t first, int32_t tokens) {
    rows = tokens;
    const int64_t at = (int64_t{head} * in.tokens + first) * in.key_dim;
    const A scale = static_cast<A>(in.scale);
    block_elements(int64_t{rows} * in.key_dim, [&](int64_t i) {
      q[i] = scale * static_cast<A>(all_q[at + i]);
      k[i] = static_cast<A>(all_k[at + i]);
    });
    __syncthreads();
    const A *keys = k, *queries = q;
    A *query_products = qk, *key_products = kk;
    const int dim = in.key_dim, stride = in.chunk;
    const auto transposed = [=](int p, int j) { return keys[j * dim + p]; };
    block_product<A>(
        rows, rows, dim, [=](int i, int p) { return queries[i * dim + p]; }, transposed,
        [=](int i, int j, A sum) { query_products[i * stride + j] = sum; });
    block_product<A>(
        rows, rows, dim, [=](int i, int p) { return keys[i * dim + p]; }, transposed,
        [=](int i, int j, A sum) { key_products[i * stride + j] = sum; });
  }

  __device__ void load_gates(const A* log_decay, const A* gate) {
    __syncthreads();  // what was read of the gates before may be overwritten
    block_elements(rows, [&](int64_t r) {
      each->decay[r] = std::exp(log_decay[r]);
      each->beta[r] = gate[r];
    });
    __syncthreads();
    const int stride = in.chunk;
    block_elements(rows + 1, [&](int64_t c) {
      if (c == rows) {
        A since = A(1);
        for (int r = 0; r < rows; ++r) each->since_start[r] = since *= each->decay[r];
        return;
      }
      A product = A(1);
      for (int r = 0; r < rows; ++r) {
        if (r > c) product *= each->decay[r];
        const int64_t at = int64_t{r} * stride + c;
        const A g = r < c ? A(0) : product;
        decay[at] = g;
        scores[at] = r < c ? A(0) : qk[at] * g;
        system[at] = r <= c ? A(0) : -each->beta[r] * (kk[at] * g);
      }
      each->to_end[c] = product;
    });
    __syncthreads();
  }

  // error = E, update = U; state [key_dim, columns] may be null: zero. values has value_dim columns.
  __device__ void solve(const T* values, const A* state) {
    const A* keys = k;
    const int dim = in.key_dim, width = columns, value_dim = in.value_dim;
    const DeltaRuleRows<A>* row = each;
    A *e = error, *u = update;
    block_product<A>(
        rows, width, state == nullptr ? 0 : dim, [=](int i, int p) { return keys[i * dim + p]; },
        [=](int p, int j) { return state[int64_t{p} * width + j]; },
        [=](int i, int j, A sum) {
          const A value = j < value_dim ? static_cast<A>(values[int64_t{i} * value_dim + j]) : A(0);
          e[i * width + j] = value - row->since_start[i] * sum;
          u[i * width + j] = row->beta[i] * e[i * width + j];
        });
    __syncthreads();
    block_elements(width, [&](int64_t j) {
      for (int r = 1; r < rows; ++r) {
        A sum = u[r * width + j];
        for (int s = 0; s < r; ++s) sum += system[r * in.chunk + s] * u[s * width + j];
        u[r * width + j] = sum;
      }
    });
    __syncthreads();
  }
};

}  // namespace tessera::cuda
