// Tiles in shared memory and fragments in registers for attention on tensor cores. Internal to
// tensor/ops/attention_*_cuda.cu.
//
// A tile is 64 tokens by D elements of BF16, D the head size rounded up to one of 64, 96, 128 and 256, zeros beyond the
// head. Its rows lie D + 8 elements apart, an odd number of 16-byte units, so that the eight rows that ldmatrix reads
// at once lie in different banks.
//
// A fragment of sums, [16, 8]: lane l holds rows l / 4 and l / 4 + 8, columns 2 (l % 4) and the next, as
// {row, column}, {row, column + 1}, {row + 8, column}, {row + 8, column + 1}.
#pragma once

#include <numbers>

#include "tensor/ops/attention/attention_cuda.h"

namespace tessera::cuda {

constexpr int kTile = static_cast<int>(kAttentionTile);

template <int D>
constexpr int kRowElements = D + 8;
template <int D>
constexpr int kTileElements = int{kRowElements<D>} * kTile;
template <int D>
constexpr int64_t kTileBytes = int64_t{kTileElements<D>} * 2;

// How many of each tile that streams through shared memory there are: the next one arrives while one is used, unless
// there is no room (163 KiB on sm_80).
template <int D>
constexpr int kStages = D > 128 ? 1 : 2;

// Calls f with D as a constant.
template <class F>
void with_head_size(int64_t head_dim, F&& f) {
  if (head_dim <= 64)
    f(std::integral_constant<int, 64>{});
  else if (head_dim <= 96)
    f(std::integral_constant<int, 96>{});
  else if (head_dim <= 128)
    f(std::integral_constant<int, 128>{});
  else
    f(std::integral_constant<int, 256>{});
}

// Starts the copy of `rows` rows, `stride` elements apart, of head_dim elements each; the rest of the tile becomes
// zeros. By all kThreads threads of the block. Where they come out even a thread keeps to its columns, and a copy costs
// it eight instructions: there are up to sixteen for each pair of tiles, in the way of the products.
template <int D, int kThreads>
__device__ __forceinline__ void load_tile(bf16* tile, const bf16* from, int64_t stride, int rows, int head_dim) {
  constexpr int kChunks = D / 8;
  const int thread = static_cast<int>(threadIdx.x);
  if constexpr (kThreads % kChunks == 0) {
    constexpr int kRows = kThreads / kChunks;
    const int first = thread / kChunks, column = thread % kChunks * 8;
    bf16* to = tile + first * kRowElements<D> + column;
    const bf16* source = from + first * stride + column;
    const int last = column < head_dim ? rows : 0;
#pragma unroll 2
    for (int row = first; row < kTile; row += kRows) {
      copy_async(to, row < last ? source : from, row < last ? 16 : 0);
      to += kRows * kRowElements<D>;
      source += kRows * stride;
    }
  } else {
    static_assert(kTile * kChunks % kThreads == 0);
#pragma unroll 2
    for (int i = thread; i < kTile * kChunks; i += kThreads) {
      const int row = i / kChunks, column = i % kChunks * 8;
      const bool inside = row < rows && column < head_dim;
      copy_async(tile + row * kRowElements<D> + column, inside ? from + row * stride + column : from, inside ? 16 : 0);
    }
  }
}

// Rows [first, first + 16), columns [k, k + 16) of a tile as a left operand.
template <int kStride>
__device__ __forceinline__ void load_left(uint32_t (&a)[4], const bf16* tile, int first, int k) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  ldmatrix(a, tile + (first + lane % 16) * kStride + k + lane / 16 * 8);
}
// Right operand [k .. k + 16) x [n .. n + 16) of a tile whose rows are n: b[0], b[1] for columns n to n + 7, b[2], b[3]
// for the next eight.
template <int kStride>
__device__ __forceinline__ void load_right(uint32_t (&b)[4], const bf16* tile, int n, int k) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  ldmatrix(b, tile + (n + lane % 8 + lane / 16 * 8) * kStride + k + lane / 8 % 2 * 8);
}
// The same of a tile whose rows are k.
template <int kStride>
__device__ __forceinline__ void load_right_rows(uint32_t (&b)[4], const bf16* tile, int k, int n) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  ldmatrix_transposed(b, tile + (k + lane % 16) * kStride + n + lane / 16 * 8);
}

// sums[r][16, 8 N] += left rows [first + 16 r, first + 16 r + 16) times right rows [n, n + 8 N), both tiles [64, D]:
// their scalar products over D. Each right operand that is loaded serves all R blocks of rows.
template <int D, int N, int R>
__device__ __forceinline__ void multiply_rows(float (&sums)[R][N][4], const bf16* left, int first, const bf16* right,
                                              int n) {
#pragma unroll
  for (int k = 0; k < D; k += 16) {
    uint32_t a[R][4], b[4];
#pragma unroll
    for (int r = 0; r < R; ++r) load_left<kRowElements<D>>(a[r], left, first + 16 * r, k);
#pragma unroll
    for (int i = 0; i < N; i += 2) {
      load_right<kRowElements<D>>(b, right, n + 8 * i, k);
#pragma unroll
      for (int r = 0; r < R; ++r) {
        mma(sums[r][i], a[r], b[0], b[1]);
        mma(sums[r][i + 1], a[r], b[2], b[3]);
      }
    }
  }
}

// sums[r][16, 8 N] += a[r] [16, 16] times rows [k, k + 16), columns [n, n + 8 N) of a tile [64, D].
template <int D, int N, int R>
__device__ __forceinline__ void multiply_into(float (&sums)[R][N][4], const uint32_t (&a)[R][4], const bf16* right,
                                              int k, int n) {
#pragma unroll
  for (int i = 0; i < N; i += 2) {
    uint32_t b[4];
    load_right_rows<kRowElements<D>>(b, right, k, n + 8 * i);
#pragma unroll
    for (int r = 0; r < R; ++r) {
      mma(sums[r][i], a[r], b[0], b[1]);
      mma(sums[r][i + 1], a[r], b[2], b[3]);
    }
  }
}

// Two neighbouring fragments of sums, [16, 16], as a left operand.
__device__ __forceinline__ void as_left(uint32_t (&a)[4], const float (&low)[4], const float (&high)[4]) {
  a[0] = pack_bf16(low[0], low[1]);
  a[1] = pack_bf16(low[2], low[3]);
  a[2] = pack_bf16(high[0], high[1]);
  a[3] = pack_bf16(high[2], high[3]);
}

// The element of a fragment of sums that lane l's x[i] is.
__device__ __forceinline__ int fragment_row(int i) { return static_cast<int>(threadIdx.x % 32) / 4 + i / 2 * 8; }
__device__ __forceinline__ int fragment_column(int i) { return 2 * (static_cast<int>(threadIdx.x) % 4) + i % 2; }

// Writes sums[16, 8 N] * factor[0 or 1 for a lane's two rows] as BF16 to rows `stride` elements apart, columns
// [n, n + 8 N) of head_dim, through `scratch`: 16 rows of a tile that nothing else uses.
template <int D, int N>
__device__ __forceinline__ void store_rows(const float (&sums)[N][4], const float (&factor)[2], bf16* scratch, bf16* to,
                                           int64_t stride, int n, int64_t rows, int head_dim) {
  const int lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    uint32_t* row = reinterpret_cast<uint32_t*>(scratch + fragment_row(0) * kRowElements<D> + n + 8 * i);
    row[lane % 4] = pack_bf16(sums[i][0] * factor[0], sums[i][1] * factor[0]);
    row[lane % 4 + 8 * kRowElements<D> / 2] = pack_bf16(sums[i][2] * factor[1], sums[i][3] * factor[1]);
  }
  sync_warp();
  for (int i = lane; i < 16 * N; i += 32) {
    const int row = i / N, column = n + i % N * 8;
    if (row < rows && column < head_dim) {
      store(to + row * stride + column, load<8>(scratch + row * kRowElements<D> + column));
    }
  }
  sync_warp();
}

}  // namespace tessera::cuda
