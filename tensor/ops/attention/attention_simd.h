// Vectors of T as wide as the machine's registers, and 2^x on them, in GCC's vector extensions: the same source gives
// AVX-512, AVX2 and SSE2 code. Internal to the CPU attention kernels.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "tensor/dtype.h"

namespace tessera::attention_detail {

#if defined(__AVX512F__)
constexpr int64_t kVectorBytes = 64;
constexpr int64_t kBlockVectors = 4;  // columns of a register block, in vectors: 6 x 4 sums of the 32 registers
#elif defined(__AVX__)
constexpr int64_t kVectorBytes = 32;
constexpr int64_t kBlockVectors = 2;  // 6 x 2 sums of the 16 registers
#else
constexpr int64_t kVectorBytes = 16;
constexpr int64_t kBlockVectors = 2;
#endif
constexpr int64_t kBlockRows = 6;

// T is float or double; Bits the unsigned integer of the same size, used for positions, documents and masks.
template <class T>
struct Simd {
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  static constexpr int64_t kLanes = kVectorBytes / static_cast<int64_t>(sizeof(T));

  typedef T Vector __attribute__((vector_size(kVectorBytes)));
  typedef Bits BitsVector __attribute__((vector_size(kVectorBytes)));
  typedef T UnalignedVector __attribute__((vector_size(kVectorBytes), aligned(alignof(T)), may_alias));
  typedef Bits UnalignedBits __attribute__((vector_size(kVectorBytes), aligned(alignof(T)), may_alias));

  static Vector load(const T* p) { return *reinterpret_cast<const UnalignedVector*>(p); }
  static BitsVector load(const Bits* p) { return *reinterpret_cast<const UnalignedBits*>(p); }
  static void store(T* p, Vector x) { *reinterpret_cast<UnalignedVector*>(p) = x; }
  static Vector all(T x) { return x - Vector{}; }
  // Keeps a NaN of x, so that a broken score is seen in the result.
  static Vector max(Vector known, Vector x) { return known > x ? known : x; }
};

// 2^x for x <= about 127; 0 where x < -126 (2^-126 is the smallest normal number). NaN stays NaN.
//
// x = n + f with n an integer and |f| <= 1/2. Adding 1.5 * 2^23 rounds x to n, and leaves n in the low bits of the sum,
// from where a shift puts it into an exponent. The polynomial interpolates 2^f at Chebyshev points to 2e-8 relative, a
// third of the unit roundoff; with the roundings of Horner's rule the whole is within 3 units.
inline Simd<float>::Vector exp2(Simd<float>::Vector x) {
  using S = Simd<float>;
  const S::Vector least = S::all(-126.0f);
  const S::Vector bounded = S::max(least, x);
  const S::Vector magic = S::all(12582912.0f);
  const S::Vector shifted = bounded + magic;
  const S::Vector f = bounded - (shifted - magic);
  S::Vector y = S::all(0x1.444p-13f);
  y = y * f + 0x1.5f48cp-10f;
  y = y * f + 0x1.3b2a1cp-7f;
  y = y * f + 0x1.c6aeccp-5f;
  y = y * f + 0x1.ebfbep-3f;
  y = y * f + 0x1.62e43p-1f;
  y = y * f + 1.0f;
  const S::BitsVector power = ((S::BitsVector)shifted << 23) + 0x3f800000u;
  y *= (S::Vector)power;
  return x < least ? S::Vector{} : y;
}

inline Simd<double>::Vector exp2(Simd<double>::Vector x) {
  Simd<double>::Vector y{};
  for (int64_t i = 0; i < Simd<double>::kLanes; ++i) y[i] = std::exp2(x[i]);
  return y;
}

// Sum of the lanes in a fixed order.
template <class T, class Vector>
T sum_lanes(Vector x) {
  T sum = 0;
  for (int64_t i = 0; i < Simd<T>::kLanes; ++i) sum += x[i];
  return sum;
}

}  // namespace tessera::attention_detail
