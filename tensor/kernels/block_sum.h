// Sums and maxima over the threads of a block, in an order that depends on the number of threads alone. All threads of
// the block call them and get the same bits.
#pragma once

#include "tensor/kernels/kernel.h"

namespace tessera::cuda {

constexpr int kMostWarps = 32;

template <class A>
__device__ __forceinline__ A warp_sum(A value) {
  for (int mask = 16; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
  return value;
}

template <class A>
__device__ __forceinline__ A larger(A a, A b) {
  return a > b ? a : b;
}

// Each value[k] becomes its sum over the block. blockDim.x is a multiple of 32, and the block has one dimension.
template <class A, int K>
__device__ __forceinline__ void block_sums(A (&value)[K]) {
  __shared__ Shared<A[K][kMostWarps]> partial;
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const int warps = static_cast<int>(blockDim.x / 32);
  for (int k = 0; k < K; ++k) {
    const A sum = warp_sum(value[k]);
    if (lane == 0) partial[k][warp] = sum;
  }
  __syncthreads();
  for (int k = 0; k < K; ++k) {
    value[k] = A(0);
    for (int w = 0; w < warps; ++w) value[k] += partial[k][w];
  }
  __syncthreads();  // partial may be written again
}

// The largest value over the block, where none is NaN.
template <class A>
__device__ __forceinline__ A block_max(A value) {
  __shared__ Shared<A[kMostWarps]> partial;
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const int warps = static_cast<int>(blockDim.x / 32);
  for (int mask = 16; mask > 0; mask /= 2) value = larger(shuffle_xor(value, mask), value);
  if (lane == 0) partial[warp] = value;
  __syncthreads();
  value = partial[0];
  for (int w = 1; w < warps; ++w) value = larger(partial[w], value);
  __syncthreads();
  return value;
}

}  // namespace tessera::cuda
