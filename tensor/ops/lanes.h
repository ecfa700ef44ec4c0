// Sums and maxima that vectorise without giving up a fixed order. Internal to tensor/ops.
//
// Element i goes to lane i mod kLanes, and the lanes are added in a tree: the order depends on n alone. Several
// vectors' worth of lanes hide the latency of the additions, and shorten the error bound from n to n / kLanes +
// log2(kLanes) roundings.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

namespace tessera {

constexpr int kLanes = 32;

// Sums of f(i)[0], ..., f(i)[N - 1] over i in [0, n), added in A.
template <class A, int N, class F>
[[gnu::always_inline]] inline std::array<A, N> lane_sums(int64_t n, F&& f) {
  A lane[N][kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) {
      const std::array<A, N> terms = f(i + l);
      for (int k = 0; k < N; ++k) lane[k][l] += terms[k];
    }
  }
  const int rest = static_cast<int>(n - i);
  for (int l = 0; l < rest; ++l) {
    const std::array<A, N> terms = f(i + l);
    for (int k = 0; k < N; ++k) lane[k][l] += terms[k];
  }
  std::array<A, N> sums;
  for (int k = 0; k < N; ++k) {
    for (int width = kLanes / 2; width > 0; width /= 2) {
      for (int l = 0; l < width; ++l) lane[k][l] += lane[k][l + width];
    }
    sums[k] = lane[k][0];
  }
  return sums;
}

// Sum of f(i) over i in [0, n), added in A.
template <class A, class F>
[[gnu::always_inline]] inline A lane_sum(int64_t n, F&& f) {
  return lane_sums<A, 1>(
      n, [&](int64_t i) __attribute__((always_inline)) { return std::array<A, 1>{f(i)}; })[0];
}

// Largest of `least` and f(i) over i in [0, n); f(i) that compare with nothing (NaN) are left out.
template <class A, class F>
[[gnu::always_inline]] inline A lane_max(int64_t n, A least, F&& f) {
  A lane[kLanes];
  std::fill_n(lane, kLanes, least);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) {
      const A value = f(i + l);
      lane[l] = value > lane[l] ? value : lane[l];
    }
  }
  const int rest = static_cast<int>(n - i);
  for (int l = 0; l < rest; ++l) {
    const A value = f(i + l);
    lane[l] = value > lane[l] ? value : lane[l];
  }
  return *std::max_element(lane, lane + kLanes);
}

}  // namespace tessera
