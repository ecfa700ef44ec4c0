// Exponential and sigmoid that compilers vectorise: branch-free for float, the standard library's for double.
//
// Internal to tensor/ops. A loop over them must be inlined into code built with the host's instruction set; every
// element gets the same operations in the main loop and in its remainder, so results do not depend on how a range is
// split.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace tessera::simd {

// e^x within 1.01 units in the last place (measured over all floats), +infinity above log(FLT_MAX), NaN for NaN.
// Results below FLT_MIN are 0: what is lost is absolutely less than 2^-126.
//
// x = n ln 2 + r with |r| <= ln(2) / 2 and e^x = 2^n e^r. ln 2 is split in two so that n * kLn2High is exact. e^r is
// 1 + r + r^2 p(r) with p the minimax polynomial of degree 4 of (e^r - 1 - r) / r^2 (relative error 3e-9).
[[gnu::always_inline]] inline float exp(float x) {
  constexpr float kLog2E = 0x1.715476p+0f;
  constexpr float kLn2High = 0x1.62e4p-1f, kLn2Low = 0x1.7f7d1cp-20f;
  constexpr float kRound = 0x1.8p23f;  // added to a small float, leaves its nearest integer in the last bits
  constexpr float kLogMax = 0x1.62e42ep6f, kLogMin = -0x1.5d589ep6f;  // of FLT_MAX and FLT_MIN, rounded towards zero
  const float shifted = std::fma(x, kLog2E, kRound);
  const float n = shifted - kRound;
  const float r = std::fma(n, -kLn2Low, std::fma(n, -kLn2High, x));
  float p = 0x1.6a23ccp-10f;
  p = std::fma(p, r, 0x1.123a2p-7f);
  p = std::fma(p, r, 0x1.5558f2p-5f);
  p = std::fma(p, r, 0x1.555492p-3f);
  p = std::fma(p, r, 0x1.fffffcp-2f);
  p = std::fma(p, r * r, r) + 1.0f;
  // 2^n p by adding n to p's exponent: the shift drops all of `shifted` but the last bits of n.
  const uint32_t scaled = std::bit_cast<uint32_t>(p) + (std::bit_cast<uint32_t>(shifted) << 23);
  // Beyond these bounds everything above is meaningless. The sum makes infinity, and of NaN a NaN.
  const float result = std::bit_cast<float>(scaled);
  const float bounded = x <= kLogMax ? result : x + std::numeric_limits<float>::infinity();
  return x < kLogMin ? 0.0f : bounded;
}

inline double exp(double x) { return std::exp(x); }

// 1 / (1 + e^-x): 0 and 1 at the infinities, NaN for NaN. sigmoid(2u) = (1 + tanh u) / 2 without the cancellation at
// negative u.
template <class A>
[[gnu::always_inline]] inline A sigmoid(A x) {
  return A(1) / (A(1) + exp(-x));
}

}  // namespace tessera::simd
