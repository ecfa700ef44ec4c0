// Matrix products of one tile, C (+)= A B, small enough to stay in the first two caches: blocks of C are held in
// registers, B is read in rows of whole vectors, and single elements of A are spread over a vector. A may be stored
// either way, so nothing is packed. Internal to tensor/ops on the CPU.
#pragma once

#include <algorithm>
#include <cstdint>

#include "tensor/ops/attention/attention_simd.h"
#include "tensor/ops/gemm/gemm.h"

namespace tessera::attention_detail {

// A [m, k]: element (i, p) is at [i * stride + p], or with Yes at [p * stride + i].
template <class T>
struct LeftMatrix {
  const T* data;
  int64_t stride;
  Transpose transpose;
};

// Row-major with this distance between rows.
template <class T>
struct RowMatrix {
  T* data;
  int64_t stride;
};

// One block of kRows x (kVectors vectors) of C.
template <class T, Transpose kTranspose, int kRows, int kVectors>
inline __attribute__((always_inline)) void block_product(int64_t k, const T* a, int64_t a_stride, const T* b,
                                                         int64_t b_stride, T* c, int64_t c_stride, Write write) {
  using S = Simd<T>;
  typename S::Vector sum[kRows][kVectors];
  if (write == Write::Accumulate) {
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[i][v] = S::load(c + i * c_stride + v * S::kLanes);
  } else {
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[i][v] = typename S::Vector{};
  }
  for (int64_t p = 0; p < k; ++p) {
    typename S::Vector row[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) row[v] = S::load(b + p * b_stride + v * S::kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const T x = kTranspose == Transpose::Yes ? a[p * a_stride + i] : a[i * a_stride + p];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[i][v] += x * row[v];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) S::store(c + i * c_stride + v * S::kLanes, sum[i][v]);
}

// All rows of C, kVectors vectors wide.
template <class T, Transpose kTranspose, int kVectors>
void panel_product(int64_t m, int64_t k, const T* a, int64_t a_stride, const T* b, int64_t b_stride, T* c,
                   int64_t c_stride, Write write) {
  const int64_t a_row = kTranspose == Transpose::Yes ? 1 : a_stride;
  int64_t i = 0;
  for (; i + kBlockRows <= m; i += kBlockRows) {
    block_product<T, kTranspose, kBlockRows, kVectors>(k, a + i * a_row, a_stride, b, b_stride, c + i * c_stride,
                                                       c_stride, write);
  }
  const T* a_last = a + i * a_row;
  T* c_last = c + i * c_stride;
  switch (m - i) {
    case 5:
      return block_product<T, kTranspose, 5, kVectors>(k, a_last, a_stride, b, b_stride, c_last, c_stride, write);
    case 4:
      return block_product<T, kTranspose, 4, kVectors>(k, a_last, a_stride, b, b_stride, c_last, c_stride, write);
    case 3:
      return block_product<T, kTranspose, 3, kVectors>(k, a_last, a_stride, b, b_stride, c_last, c_stride, write);
    case 2:
      return block_product<T, kTranspose, 2, kVectors>(k, a_last, a_stride, b, b_stride, c_last, c_stride, write);
    case 1:
      return block_product<T, kTranspose, 1, kVectors>(k, a_last, a_stride, b, b_stride, c_last, c_stride, write);
    default:
      return;
  }
}

template <class T, Transpose kTranspose>
void tile_product_oriented(int64_t m, int64_t n, int64_t k, const T* a, int64_t a_stride, RowMatrix<const T> b,
                           RowMatrix<T> c, Write write) {
  constexpr int64_t kLanes = Simd<T>::kLanes;
  int64_t j = 0;
  for (; j + kBlockVectors * kLanes <= n; j += kBlockVectors * kLanes) {
    panel_product<T, kTranspose, kBlockVectors>(m, k, a, a_stride, b.data + j, b.stride, c.data + j, c.stride, write);
  }
  if constexpr (kBlockVectors > 2) {
    for (; j + 2 * kLanes <= n; j += 2 * kLanes) {
      panel_product<T, kTranspose, 2>(m, k, a, a_stride, b.data + j, b.stride, c.data + j, c.stride, write);
    }
  }
  for (; j < n; j += kLanes) {
    panel_product<T, kTranspose, 1>(m, k, a, a_stride, b.data + j, b.stride, c.data + j, c.stride, write);
  }
}

// C [m, n] (+)= A [m, k] B [k, n], n a multiple of the vector's lanes.
template <class T>
void tile_product(int64_t m, int64_t n, int64_t k, LeftMatrix<T> a, RowMatrix<const T> b, RowMatrix<T> c, Write write) {
  if (a.transpose == Transpose::Yes)
    tile_product_oriented<T, Transpose::Yes>(m, n, k, a.data, a.stride, b, c, write);
  else
    tile_product_oriented<T, Transpose::No>(m, n, k, a.data, a.stride, b, c, write);
}

}  // namespace tessera::attention_detail
