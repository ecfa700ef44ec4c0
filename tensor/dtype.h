// Element types. Interfaces carry a DType at run time; kernels are templates over the C++ type inside their .cc file.
#pragma once

#include <bit>
#include <cstdint>
#include <string>
#include <type_traits>

#include "tensor/check.h"
#include "tensor/float8.h"

namespace tessera {

enum class DType : uint8_t { F64, F32, BF16, E4M3, E5M2, I32, U16, U32 };

// What is constexpr here may be called by device code too (nvcc's --expt-relaxed-constexpr).

// bfloat16: the upper half of an IEEE float. Conversion from float rounds to nearest even and keeps NaN a NaN.
struct bf16 {
  uint16_t bits;

  bf16() = default;
  constexpr explicit bf16(float value) {
    const uint32_t u = std::bit_cast<uint32_t>(value);
    const uint32_t rounded = u + 0x7fffu + ((u >> 16) & 1u);
    const uint32_t quiet_nan = u | 0x00400000u;
    bits = static_cast<uint16_t>((value != value ? quiet_nan : rounded) >> 16);
  }
  constexpr explicit operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
  constexpr explicit operator double() const { return static_cast<float>(*this); }
};

// x rounded once to T, to nearest even. From double to bf16 this differs from rounding to float and then to bf16: the
// float in between is made odd when it is inexact, which keeps the second rounding from seeing a false tie (Boldo and
// Melquiond, "Emulation of a FMA and correctly rounded sums: proved algorithms using rounding to odd", 2008).
template <class T, class S>
[[gnu::always_inline]] constexpr inline T round_to(S x) {
  if constexpr (std::is_same_v<T, bf16> && std::is_same_v<S, double>) {
    const float nearest = static_cast<float>(x);
    const double back = nearest;
    uint32_t bits = std::bit_cast<uint32_t>(nearest);
    bits -= (back < 0 ? -back : back) > (x < 0 ? -x : x) ? 1 : 0;  // towards zero
    bits |= back != x ? 1 : 0;
    return bf16(std::bit_cast<float>(bits));
  } else if constexpr (std::is_same_v<T, bf16>) {
    return bf16(static_cast<float>(x));
  } else {
    return static_cast<T>(x);
  }
}

constexpr int64_t size_of(DType dtype) {
  switch (dtype) {
    case DType::F64:
      return 8;
    case DType::F32:
    case DType::I32:
    case DType::U32:
      return 4;
    case DType::BF16:
    case DType::U16:
      return 2;
    case DType::E4M3:
    case DType::E5M2:
      return 1;
  }
  return 0;
}

const char* name(DType dtype);

// The dtype named `text` ("F32", ...); throws UsageError naming `what` and the choices.
DType parse_dtype(const std::string& text, const std::string& what);

// Accumulation dtype of a compute dtype: F64 for F64, else F32. It governs norm statistics, lse, loss, gradients,
// reductions and master weights.
constexpr DType accumulation_dtype(DType compute) { return compute == DType::F64 ? DType::F64 : DType::F32; }

template <class T>
struct Accumulation {
  using type = float;
};
template <>
struct Accumulation<double> {
  using type = double;
};
template <class T>
using Acc = typename Accumulation<T>::type;

template <class T>
constexpr DType dtype_of() {
  using U = std::remove_const_t<T>;
  if constexpr (std::is_same_v<U, double>)
    return DType::F64;
  else if constexpr (std::is_same_v<U, float>)
    return DType::F32;
  else if constexpr (std::is_same_v<U, bf16>)
    return DType::BF16;
  else if constexpr (std::is_same_v<U, e4m3>)
    return DType::E4M3;
  else if constexpr (std::is_same_v<U, e5m2>)
    return DType::E5M2;
  else if constexpr (std::is_same_v<U, int32_t>)
    return DType::I32;
  else if constexpr (std::is_same_v<U, uint16_t>)
    return DType::U16;
  else if constexpr (std::is_same_v<U, uint32_t>)
    return DType::U32;
  else
    static_assert(!sizeof(U), "no DType for this type");
}

// Unit roundoff of a float type: half the distance from 1 to the next number.
constexpr double unit_roundoff(DType dtype) {
  switch (dtype) {
    case DType::F64:
      return 0x1p-53;
    case DType::F32:
      return 0x1p-24;
    case DType::E4M3:
      return 0x1p-4;
    case DType::E5M2:
      return 0x1p-3;
    default:
      return 0x1p-8;  // BF16
  }
}

constexpr bool is_float8(DType dtype) { return dtype == DType::E4M3 || dtype == DType::E5M2; }

// Calls f(T{}) for the C++ type T of a dtype that is computed in: the one place, with the next, where run-time dtype
// becomes compile-time type.
template <class F>
decltype(auto) dispatch_float(DType dtype, F&& f) {
  switch (dtype) {
    case DType::F64:
      return f(double{});
    case DType::F32:
      return f(float{});
    case DType::BF16:
      return f(bf16{});
    default:
      break;
  }
  throw InternalError(std::string("a float dtype is needed, not ") + name(dtype));
}

// The same for the two dtypes that only matrix products read.
template <class F>
decltype(auto) dispatch_float8(DType dtype, F&& f) {
  if (dtype == DType::E4M3) return f(e4m3{});
  if (dtype == DType::E5M2) return f(e5m2{});
  throw InternalError(std::string("an 8-bit float dtype is needed, not ") + name(dtype));
}

}  // namespace tessera
