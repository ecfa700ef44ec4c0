// tensor/kernels/kernel.h's names for nvcc.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include <bit>
#include <cstdint>
#include <string>
#include <type_traits>

#include "tensor/context/context.h"
#include "tensor/dtype.h"

namespace tessera::cuda {

constexpr uint32_t kAllLanes = 0xffffffffu;

template <class T>
__device__ __forceinline__ T* shared_memory() {
  extern __shared__ __align__(16) unsigned char tessera_shared_memory[];
  return reinterpret_cast<T*>(tessera_shared_memory);
}

template <class T>
using Shared = T;

__device__ __forceinline__ void sync_warp() { __syncwarp(); }
__device__ __forceinline__ void sync_threads(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

template <class T>
__device__ __forceinline__ T shuffle(T value, int from) {
  return __shfl_sync(kAllLanes, value, from);
}
template <class T>
__device__ __forceinline__ T shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(kAllLanes, value, mask);
}
__device__ __forceinline__ bool vote_any(bool predicate) { return __any_sync(kAllLanes, predicate) != 0; }

__device__ __forceinline__ void atomic_or(int32_t* at, int32_t value) { atomicOr(at, value); }

template <class T, class S>
__device__ __forceinline__ T rounded(S x) {
  if constexpr (std::is_same_v<T, bf16> && std::is_same_v<S, float>) {
    bf16 result;
    result.bits = __bfloat16_as_ushort(__float2bfloat16_rn(x));  // one instruction on sm_80 and later
    return result;
  } else if constexpr ((std::is_same_v<T, e4m3> || std::is_same_v<T, e5m2>)&&std::is_same_v<S, float>) {
    T result;  // one instruction on sm_89 and later
    result.bits = __nv_cvt_float_to_fp8(x, __NV_SATFINITE, std::is_same_v<T, e4m3> ? __NV_E4M3 : __NV_E5M2);
    return result;
  } else {
    return round_to<T>(x);
  }
}

__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
__device__ __forceinline__ float power_of_two(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

__device__ __forceinline__ float reciprocal(float x) {
  float result;
  asm("rcp.approx.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

__device__ __forceinline__ void store_quad(void* to, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "r"(a), "r"(b), "r"(c),
               "r"(d)
               : "memory");
}

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

__device__ __forceinline__ void copy_async(void* shared, const void* global, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kGroupsLeft>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroupsLeft) : "memory");
}

__device__ __forceinline__ void ldmatrix(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_transposed(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// A CUDA error from starting `name` as an InternalError.
void check_launch(int error, const char* name);
// From now on `kernel` may have that much dynamic shared memory on this device, as CUDA wants to be asked for more than
// 48 KiB.
void allow_shared_memory(const void* kernel, int ordinal, int64_t bytes, const char* name);

template <class... Parameters, class... Arguments>
void launch(const Context& context, const char* name, void (*kernel)(Parameters...), dim3 blocks, dim3 threads,
            int64_t shared_bytes, Arguments... arguments) {
  // Up to 48 KiB need no permission, but what the kernel declares itself (block_sum.h, a transposed tile) counts too.
  constexpr int64_t kDeclared = 16 << 10;
  if (shared_bytes > 48 * 1024 - kDeclared) {
    allow_shared_memory(reinterpret_cast<const void*>(kernel), context.cuda().device().ordinal, shared_bytes, name);
  }
  kernel<<<blocks, threads, static_cast<size_t>(shared_bytes),
           static_cast<cudaStream_t>(context.cuda().stream().handle())>>>(static_cast<Parameters>(arguments)...);
  check_launch(cudaGetLastError(), name);
}

}  // namespace tessera::cuda
