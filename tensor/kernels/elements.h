// Element-by-element kernels: a grid-stride loop over packs of N elements, then the last few one by one.
//
// F is a struct with template <int N> __device__ void run(int64_t first) const, which does elements first to
// first + N - 1. Memory traffic is all that such a kernel does, so 16-byte accesses and enough threads to keep them in
// flight reach the bandwidth.
#pragma once

#include <algorithm>
#include <type_traits>

#include "tensor/context/context.h"
#include "tensor/kernels/kernel.h"

namespace tessera::cuda {

constexpr int kElementThreads = 256;

// Blocks of a grid-stride loop over `items`, one a thread: at most what keeps every multiprocessor full.
inline unsigned int stride_blocks(const Context& context, int64_t items, int64_t threads) {
  const int64_t most = int64_t{16} * context.cuda().device().multiprocessors;
  return static_cast<unsigned int>(std::clamp<int64_t>(ceil_divide(items, threads), 1, most));
}

// Calls f with N as a constant when `whole`, else with 1.
template <int N, class F>
void with_width(bool whole, F&& f) {
  if (whole)
    f(std::integral_constant<int, N>{});
  else
    f(std::integral_constant<int, 1>{});
}

// Threads of a block that walks along a row of `packs` packs: whole warps, at most kElementThreads.
inline unsigned int row_threads(int64_t packs) {
  return static_cast<unsigned int>(std::clamp<int64_t>(ceil_divide(packs, 32) * 32, 32, kElementThreads));
}

template <int N, class F>
__global__ void __launch_bounds__(kElementThreads) elements_kernel(int64_t packs, int64_t count, F f) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  const int64_t self = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  for (int64_t i = self; i < packs; i += stride) f.template run<N>(i * N);
  if (const int64_t rest = packs * N + self; rest < count) f.template run<1>(rest);
}

// N elements at a time when the operands are `whole`: aligned to 16 bytes, so that packs are too. N <= kElementThreads.
template <int N, class F>
void for_elements(const Context& context, const char* name, int64_t count, bool whole, const F& f) {
  if (count == 0) return;
  const int64_t packs = count / N;
  if (whole) {
    launch(context, name, &elements_kernel<N, F>, stride_blocks(context, packs, kElementThreads), kElementThreads, 0,
           packs, count, f);
  } else {
    launch(context, name, &elements_kernel<1, F>, stride_blocks(context, count, kElementThreads), kElementThreads, 0,
           count, count, f);
  }
}

}  // namespace tessera::cuda
