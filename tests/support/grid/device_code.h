// CUDA's words and tensor/kernels/device_code.h's names for the host compiler: kernels call these and the emulator runs
// them. Found as <grid/device_code.h> by tensor/kernels/kernel.h.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <string>

#include "tensor/context/context.h"
#include "tensor/dtype.h"
#include "tests/support/grid/grid.h"
#include "tests/support/grid/streams.h"

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

inline void __syncthreads() { tessera::grid::barrier(0, static_cast<int>(blockDim.x * blockDim.y * blockDim.z)); }

namespace tessera::cuda {

constexpr uint32_t kAllLanes = 0xffffffffu;

template <class T>
T* shared_memory() {
  return static_cast<T*>(grid::shared_memory());
}

// One of its kind for all blocks, which run one after another.
template <class T>
class Shared {
 public:
  Shared() { grid::declare_shared(&value_, sizeof(value_)); }
  operator T&() { return value_; }

 private:
  alignas(16) T value_;
};

inline void sync_warp() {
  grid::warp(
      kAllLanes, [](const std::array<void*, grid::kLanes>&) {}, nullptr);
}
inline void sync_threads(int id, int threads) { grid::barrier(id, threads); }

template <class T>
T shuffle(T value, int from) {
  struct Argument {
    T value, result;
    int from;
  } argument{value, value, from};
  grid::warp(
      kAllLanes,
      [](const std::array<void*, grid::kLanes>& lanes) {
        for (void* lane : lanes) {
          Argument& a = *static_cast<Argument*>(lane);
          a.result = static_cast<Argument*>(lanes[a.from % grid::kLanes])->value;
        }
      },
      &argument);
  return argument.result;
}
template <class T>
T shuffle_xor(T value, int mask) {
  return shuffle(value, grid::lane() ^ mask);
}

inline uint32_t vote(bool predicate) {
  struct Argument {
    bool predicate;
    uint32_t result;
  } argument{predicate, 0};
  grid::warp(
      kAllLanes,
      [](const std::array<void*, grid::kLanes>& lanes) {
        uint32_t result = 0;
        for (int i = 0; i < grid::kLanes; ++i) {
          result |= static_cast<uint32_t>(static_cast<Argument*>(lanes[i])->predicate) << i;
        }
        for (void* lane : lanes) static_cast<Argument*>(lane)->result = result;
      },
      &argument);
  return argument.result;
}
inline bool vote_any(bool predicate) { return vote(predicate) != 0; }

inline void atomic_or(int32_t* at, int32_t value) { __atomic_fetch_or(at, value, __ATOMIC_RELAXED); }

template <class T, class S>
T rounded(S x) {
  return round_to<T>(x);
}

inline uint32_t pack_bf16(float low, float high) {
  return bf16(low).bits | static_cast<uint32_t>(bf16(high).bits) << 16;
}
inline float power_of_two(float x) { return std::exp2(x); }
inline float reciprocal(float x) { return 1 / x; }

inline void store_quad(void* to, uint32_t a, uint32_t b, uint32_t c, uint32_t d) { grid::store_quad(to, {a, b, c, d}); }

inline void copy_async(void* shared, const void* global, int bytes) { grid::copy_async(shared, global, bytes); }
inline void commit_copies() { grid::commit_copies(); }
template <int kGroupsLeft>
void wait_copies() {
  grid::wait_copies(kGroupsLeft);
}

// Lanes 8 i to 8 i + 7 give the rows of matrix i; lane l receives row l / 4, columns 2 (l % 4) and the next, of each
// (transposed: column l / 4, rows 2 (l % 4) and the next).
template <bool kTransposed>
void load_matrices(uint32_t (&r)[4], const void* row) {
  struct Argument {
    const void* row;
    uint32_t* r;
  } argument{row, r};
  grid::check_matrix_row(row);
  grid::warp(
      kAllLanes,
      [](const std::array<void*, grid::kLanes>& lanes) {
        for (int l = 0; l < grid::kLanes; ++l) {
          for (int i = 0; i < 4; ++i) {
            uint16_t pair[2];
            for (int k = 0; k < 2; ++k) {
              const int row_at = kTransposed ? 2 * (l % 4) + k : l / 4;
              const int column = kTransposed ? l / 4 : 2 * (l % 4) + k;
              const void* source = static_cast<Argument*>(lanes[8 * i + row_at])->row;
              std::memcpy(&pair[k], static_cast<const char*>(source) + 2 * column, 2);
            }
            static_cast<Argument*>(lanes[l])->r[i] = pair[0] | static_cast<uint32_t>(pair[1]) << 16;
          }
        }
      },
      &argument);
}
inline void ldmatrix(uint32_t (&r)[4], const void* row) { load_matrices<false>(r, row); }
inline void ldmatrix_transposed(uint32_t (&r)[4], const void* row) { load_matrices<true>(r, row); }

// d [16, 8] += a [16, 16] b [16, 8]; fragments as in the PTX manual, "mma.m16n8k16 with floating point type".
inline void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  struct Argument {
    float* d;
    const uint32_t* a;
    uint32_t b[2];
  } argument{d, a, {b0, b1}};
  grid::warp(
      kAllLanes,
      [](const std::array<void*, grid::kLanes>& lanes) {
        float a_matrix[16][16], b_matrix[8][16];
        const auto half = [](uint32_t pair, int k) {
          return std::bit_cast<float>(k ? pair & 0xffff0000u : pair << 16);
        };
        for (int l = 0; l < grid::kLanes; ++l) {
          const Argument& from = *static_cast<Argument*>(lanes[l]);
          for (int k = 0; k < 2; ++k) {
            const int row = l / 4, column = 2 * (l % 4) + k;
            a_matrix[row][column] = half(from.a[0], k);
            a_matrix[row + 8][column] = half(from.a[1], k);
            a_matrix[row][column + 8] = half(from.a[2], k);
            a_matrix[row + 8][column + 8] = half(from.a[3], k);
            b_matrix[row][column] = half(from.b[0], k);
            b_matrix[row][column + 8] = half(from.b[1], k);
          }
        }
        for (int l = 0; l < grid::kLanes; ++l) {
          float* to = static_cast<Argument*>(lanes[l])->d;
          for (int i = 0; i < 4; ++i) {
            const float* left = a_matrix[l / 4 + 8 * (i / 2)];
            const float* right = b_matrix[2 * (l % 4) + i % 2];
            for (int k = 0; k < 16; ++k) to[i] += left[k] * right[k];
          }
        }
      },
      &argument);
}

template <class... Parameters, class... Arguments>
void launch(const Context& context, const char* name, void (*kernel)(Parameters...), dim3 blocks, dim3 threads,
            int64_t shared_bytes, Arguments... arguments) {
  grid::queue(context.cuda().stream().handle(), [=] {
    grid::run(name, blocks, threads, shared_bytes, [&] { kernel(static_cast<Parameters>(arguments)...); });
  });
}

}  // namespace tessera::cuda
