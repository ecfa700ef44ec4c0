// What a kernel's source (ops/*_cuda.cu) is written with. The same source is compiled twice: by nvcc, and by the host
// compiler for the grid emulator of the tests, which then supplies the same names.
//
// Beside CUDA's own __global__, __device__, __shared__, __launch_bounds__, threadIdx and __syncthreads, namespace
// tessera::cuda has
//   shared_memory<T>()                    the dynamic shared memory of a launch, aligned to 16 bytes
//   __shared__ Shared<T[n]> x;            static shared memory: an array, which the emulator fills with NaN as well
//   sync_warp(), sync_threads(id, n)      bar.warp.sync; bar.sync of n threads (barrier 0 is __syncthreads)
//   shuffle(x, lane), shuffle_xor(x, m)   all 32 lanes
//   vote_any(p), atomic_or
//   rounded<T>(x)                         x rounded once to T (8-bit floats: NaN is some NaN)
//   pack_bf16(low, high)                  two floats rounded, as one register
//   power_of_two(x)                       2^x within 2 units in the last place; results under 2^-126 are 0
//   reciprocal(x)                         1 / x within 1 unit in the last place
//   store_quad(to, a, b, c, d)            16 bytes at once to the device's memory, where alignment allows
//   copy_async, commit_copies, wait_copies<N>   cp.async of 16 bytes, the rest of them zero when fewer are named
//   ldmatrix, ldmatrix_transposed, mma    sm_80's m16n8k16 on BF16 with F32 sums
//   launch(context, name, kernel, blocks, threads, shared_bytes, arguments ...)   on the context's stream; throws
//                                         InternalError naming the kernel when the device refuses it
// Blocks have whole warps where warp operations are used.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

#include "tensor/context/runtime.h"

#if defined(__CUDACC__)
#include "tensor/kernels/device_code.h"
#else
#include <grid/device_code.h>
#endif

namespace tessera::cuda {

// N elements that are read and written at once: alignment min(16, their size) is the caller's to check.
template <class T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Pack {
  T x[N];
};
template <int N, class T>
__device__ __forceinline__ Pack<T, N> load(const T* from) {
  return *reinterpret_cast<const Pack<T, N>*>(from);
}
// To the device's memory, not to shared memory. By whole 16 bytes where the pack has them: left to itself the compiler
// takes a pack whose elements come from two branches apart.
template <class T, int N>
__device__ __forceinline__ void store(T* to, const Pack<T, N>& pack) {
  constexpr int kQuads = static_cast<int>(sizeof(pack) / 16);
  if constexpr (sizeof(pack) % 16 == 0) {
    const auto words = std::bit_cast<std::array<uint32_t, 4 * kQuads>>(pack);
    for (int i = 0; i < kQuads; ++i)
      store_quad(reinterpret_cast<char*>(to) + 16 * i, words[4 * i], words[4 * i + 1], words[4 * i + 2],
                 words[4 * i + 3]);
  } else {
    *reinterpret_cast<Pack<T, N>*>(to) = pack;
  }
}
// To shared memory.
template <class T, int N>
__device__ __forceinline__ void store_shared(T* to, const Pack<T, N>& pack) {
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

// Elements of T in 16 bytes.
template <class T>
constexpr int kPack = static_cast<int>(16 / sizeof(T));
// The larger of two types' packs: the elements after which both are at a multiple of 16 bytes.
template <class T, class U>
constexpr int kWidestPack = sizeof(T) < sizeof(U) ? kPack<T> : kPack<U>;

template <class... T>
bool aligned(const T*... pointers) {
  return ((reinterpret_cast<uintptr_t>(pointers) % 16 == 0) && ...);
}

constexpr int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace tessera::cuda
