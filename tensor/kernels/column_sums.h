// Sums of columns in a fixed order.
//
// A block adds up kColumnLanes packs of columns (128 bytes of a row) over a part of the rows; where there are several
// parts, their sums go to the runtime's partials, as many as fit there, and a second kernel adds them in order. The
// number of parts depends on the sizes and the alignment alone, so the sums have the same bits on every device.
#pragma once

#include <algorithm>

#include "tensor/kernels/elements.h"
#include "tensor/kernels/kernel.h"

namespace tessera::cuda {

constexpr int kColumnThreads = 512;
constexpr int kColumnBatch = 8;  // rows that a thread loads before it adds the first

// Threads side by side along a row: 128 bytes of packs, or a warp where elements are loaded one by one.
template <int N>
constexpr int kColumnLanes = N == 1 ? 32 : 8;
// Threads one below the other: thread g adds up rows g, g + kColumnGroups, ... of its part.
template <int N>
constexpr int kColumnGroups = kColumnThreads / kColumnLanes<N>;
template <int N>
constexpr int kColumnsPerBlock = int{kColumnLanes<N>} * N;
// Fewer rows are not worth a part of their own: one batch of every thread.
template <int N>
constexpr int64_t kRowsPerPart = int64_t{kColumnGroups<N>} * kColumnBatch;

// Block (b, p) adds up columns [b, b + 1) * kColumnsPerBlock over rows [p, p + 1) * rows_per_part: each thread its rows
// in ascending order, then the groups in order. With one part that is added to sums [columns], else it is written to
// parts [gridDim.y, columns].
//
// Two blocks a multiprocessor: by its own choice the compiler saves registers and waits for one load after the other.
template <int N, class T, class A>
__global__ void __launch_bounds__(kColumnThreads, 2)
    column_sums_kernel(const T* x, int64_t rows, int64_t rows_per_part, int64_t columns, int64_t stride, A* sums,
                       A* parts) {
  constexpr int kGroups = kColumnGroups<N>, kColumns = kColumnsPerBlock<N>;
  A* of_groups = shared_memory<A>();  // [kGroups, kColumns]
  const int64_t first_column = int64_t{blockIdx.x} * kColumns;
  const int own = static_cast<int>(threadIdx.x) * N;
  Pack<A, N> sum{};
  if (first_column + own < columns) {
    const int64_t end = std::min(rows, (int64_t{blockIdx.y} + 1) * rows_per_part);
    const T* from = x + first_column + own;
    int64_t row = int64_t{blockIdx.y} * rows_per_part + threadIdx.y;
    Pack<T, N> in[kColumnBatch];  // all on their way before the first is used
    for (; row + (kColumnBatch - 1) * kGroups < end; row += kColumnBatch * kGroups) {
#pragma unroll
      for (int b = 0; b < kColumnBatch; ++b) in[b] = load<N>(from + (row + b * kGroups) * stride);
#pragma unroll
      for (int b = 0; b < kColumnBatch; ++b) {
        for (int k = 0; k < N; ++k) sum.x[k] += static_cast<A>(in[b].x[k]);
      }
    }
    if (row < end) {
#pragma unroll
      for (int b = 0; b < kColumnBatch; ++b) in[b] = load<N>(from + std::min(row + b * kGroups, end - 1) * stride);
#pragma unroll
      for (int b = 0; b < kColumnBatch; ++b) {
        for (int k = 0; k < N; ++k) sum.x[k] += row + b * kGroups < end ? static_cast<A>(in[b].x[k]) : A(0);
      }
    }
  }
  for (int k = 0; k < N; ++k) of_groups[static_cast<int>(threadIdx.y) * kColumns + own + k] = sum.x[k];
  __syncthreads();
  const int column = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
  if (column >= kColumns || first_column + column >= columns) return;
  A total = gridDim.y == 1 ? sums[first_column + column] : A(0);
#pragma unroll 8
  for (int group = 0; group < kGroups; ++group) total += of_groups[group * kColumns + column];
  if (gridDim.y == 1)
    sums[first_column + column] = total;
  else
    parts[int64_t{blockIdx.y} * columns + first_column + column] = total;
}

// sums[c] += the parts' sums of column c, in order.
template <class A>
__global__ void __launch_bounds__(kElementThreads)
    column_parts_kernel(const A* parts, int64_t count, int64_t columns, A* sums) {
  const int64_t column = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (column >= columns) return;
  A total = sums[column];
#pragma unroll 8
  for (int64_t part = 0; part < count; ++part) total += parts[part * columns + column];
  sums[column] = total;
}

// sums[c] += sum over rows of x[row * stride + c].
template <class T, class A>
void add_column_sums_of(const Context& context, const char* name, const T* x, int64_t rows, int64_t columns,
                        int64_t stride, A* sums) {
  if (rows == 0 || columns == 0) return;
  const bool whole = columns % kPack<T> == 0 && stride % kPack<T> == 0 && aligned(x);
  with_width<kPack<T>>(whole, [&](auto width) {
    constexpr int N = decltype(width)::value;
    constexpr int64_t kBlockBytes = kColumnsPerBlock<N> * static_cast<int64_t>(sizeof(A));
    const int64_t across = ceil_divide(columns, kColumnsPerBlock<N>);
    const int64_t most = std::min(ceil_divide(rows, kRowsPerPart<N>), Runtime::kPartialBytes / kBlockBytes / across);
    const int64_t batches = ceil_divide(ceil_divide(rows, std::max<int64_t>(most, 1)), kRowsPerPart<N>);
    const int64_t rows_per_part = batches * kRowsPerPart<N>;
    const int64_t count = ceil_divide(rows, rows_per_part);
    A* parts = static_cast<A*>(context.cuda().partials());
    launch(context, name, &column_sums_kernel<N, T, A>,
           dim3(static_cast<unsigned int>(across), static_cast<unsigned int>(count)),
           dim3(kColumnLanes<N>, kColumnGroups<N>), kBlockBytes * kColumnGroups<N>, x, rows, rows_per_part, columns,
           stride, sums, parts);
    if (count == 1) return;
    launch(context, name, &column_parts_kernel<A>, static_cast<unsigned int>(ceil_divide(columns, kElementThreads)),
           kElementThreads, 0, static_cast<const A*>(parts), count, columns, sums);
  });
}

}  // namespace tessera::cuda
