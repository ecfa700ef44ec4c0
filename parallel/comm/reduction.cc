#include "parallel/comm/reduction.h"

#include <algorithm>
#include <string>
#include <type_traits>

#include "tensor/check.h"

namespace tessera {
namespace {

// The type to add T in. Unsigned for integers: their sums wrap around instead of being undefined.
template <class T>
using Accumulator = std::conditional_t<std::is_integral_v<T>, uint32_t, Acc<T>>;

// N parts in one pass: the sum of an element stays in a register.
template <int N, class T>
void add_few(std::span<const std::byte* const> parts, T* out, int64_t count) {
  const T* x[N];
  for (int r = 0; r < N; ++r) x[r] = reinterpret_cast<const T*>(parts[r]);
    // out may be one of the parts, element on element: no iteration reads what another writes.
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) {
    auto sum = static_cast<Accumulator<T>>(x[0][i]);
    for (int r = 1; r < N; ++r) sum += static_cast<Accumulator<T>>(x[r][i]);
    out[i] = static_cast<T>(sum);
  }
}

// Any number of parts: a block of sums stays in the first-level cache while the parts stream by.
template <class T>
void add_many(std::span<const std::byte* const> parts, T* out, int64_t count) {
  constexpr int64_t kBlock = 1024;
  using A = Accumulator<T>;
  A sums[kBlock];
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t n = std::min(kBlock, count - begin);
    const T* first = reinterpret_cast<const T*>(parts[0]) + begin;
    for (int64_t i = 0; i < n; ++i) sums[i] = static_cast<A>(first[i]);
    for (size_t r = 1; r < parts.size(); ++r) {
      const T* x = reinterpret_cast<const T*>(parts[r]) + begin;
      for (int64_t i = 0; i < n; ++i) sums[i] += static_cast<A>(x[i]);
    }
    for (int64_t i = 0; i < n; ++i) out[begin + i] = static_cast<T>(sums[i]);
  }
}

template <class T>
void add_all(std::span<const std::byte* const> parts, std::byte* out_bytes, int64_t count) {
  T* out = reinterpret_cast<T*>(out_bytes);
  switch (parts.size()) {
    case 2:
      return add_few<2>(parts, out, count);
    case 3:
      return add_few<3>(parts, out, count);
    case 4:
      return add_few<4>(parts, out, count);
    case 8:
      return add_few<8>(parts, out, count);
    default:
      return add_many(parts, out, count);
  }
}

template <class T>
void max_all(std::span<const std::byte* const> parts, std::byte* out_bytes, int64_t count) {
  using A = std::conditional_t<std::is_integral_v<T>, T, Acc<T>>;
  T* out = reinterpret_cast<T*>(out_bytes);
  for (int64_t i = 0; i < count; ++i) {
    T best = reinterpret_cast<const T*>(parts[0])[i];
    for (size_t r = 1; r < parts.size(); ++r) {
      const T x = reinterpret_cast<const T*>(parts[r])[i];
      // Written so that a NaN wins and stays.
      const A a = static_cast<A>(best), b = static_cast<A>(x);
      if (a == a && !(b <= a)) best = x;
    }
    out[i] = best;
  }
}

template <class T>
void reduce(std::span<const std::byte* const> parts, std::byte* out, int64_t count, Reduction reduction) {
  if (reduction == Reduction::Sum)
    add_all<T>(parts, out, count);
  else
    max_all<T>(parts, out, count);
}

}  // namespace

void reduce_in_rank_order(std::span<const std::byte* const> parts, std::byte* out, int64_t count, DType dtype,
                          Reduction reduction) {
  switch (dtype) {
    case DType::F64:
      return reduce<double>(parts, out, count, reduction);
    case DType::F32:
      return reduce<float>(parts, out, count, reduction);
    case DType::BF16:
      return reduce<bf16>(parts, out, count, reduction);
    case DType::I32:
      return reduce<int32_t>(parts, out, count, reduction);
    case DType::U32:
      return reduce<uint32_t>(parts, out, count, reduction);
    case DType::E4M3:
    case DType::E5M2:
    case DType::U16:
      break;
  }
  throw InternalError(std::string("no reduction over ranks for dtype ") + name(dtype));
}

}  // namespace tessera
