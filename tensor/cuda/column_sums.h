// Sums of columns in a fixed order.
#pragma once

#include "tensor/cuda/kernel.h"

namespace tessera::cuda {

constexpr int kColumnsPerBlock = 32;  // one a lane

// sums[c] += sum over rows of x[row * stride + c]. Blocks of (32, groups) threads: group g adds rows g, g + groups, ...
// in ascending order, then the groups are added in order, and their sum to what was there.
template <class T, class A>
__global__ void column_sums_kernel(const T* x, int64_t rows, int64_t columns, int64_t stride, A* sums) {
  A* partial = shared_memory<A>();  // [groups, 32]
  const int64_t column = int64_t{blockIdx.x} * kColumnsPerBlock + threadIdx.x;
  A sum = A(0);
  if (column < columns) {
    for (int64_t row = threadIdx.y; row < rows; row += blockDim.y) sum += static_cast<A>(x[row * stride + column]);
  }
  partial[threadIdx.y * kColumnsPerBlock + threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y == 0 && column < columns) {
    A total = sums[column];
    for (unsigned int group = 0; group < blockDim.y; ++group) total += partial[group * kColumnsPerBlock + threadIdx.x];
    sums[column] = total;
  }
}

template <class T, class A>
void add_column_sums_of(const Context& context, const char* name, const T* x, int64_t rows, int64_t columns,
                        int64_t stride, A* sums) {
  if (rows == 0 || columns == 0) return;
  // Many rows: as many groups as a block can have, to keep loads in flight.
  const unsigned int groups = rows >= 512 ? 32 : 8;
  launch(context, name, &column_sums_kernel<T, A>, static_cast<unsigned int>(ceil_divide(columns, kColumnsPerBlock)),
         dim3(kColumnsPerBlock, groups), static_cast<int64_t>(groups * kColumnsPerBlock * sizeof(A)), x, rows, columns,
         stride, sums);
}

}  // namespace tessera::cuda
