// The two 8-bit floats of matrix products (Micikevicius et al. 2022, "FP8 Formats for Deep Learning", table 1):
//
//           sign, exponent, mantissa bits   bias   largest   smallest normal   smallest   infinities
//   e4m3    1-4-3                              7       448             2^-6       2^-9           none
//   e5m2    1-5-2                             15     57344            2^-14      2^-16            yes
//
// Conversion from float rounds to nearest even and saturates: what lies beyond the largest number, infinities too,
// becomes that number with its sign; NaN stays NaN. They hold numbers that were scaled (tensor/ops/quantise.h), never
// weights or activations by themselves.
#pragma once

#include <bit>
#include <cstdint>

namespace tessera {

namespace float8 {

// Of a format: bits of the mantissa, the exponent's bias, and the code of the largest number.
template <int kMantissa, int kBias, uint8_t kLargest>
struct Format {
  // Float bits of the largest number; then the code's exponent and mantissa lie where a float's are.
  static constexpr uint32_t kLargestBits =
      (static_cast<uint32_t>(kLargest) << (23 - kMantissa)) + (static_cast<uint32_t>(127 - kBias) << 23);
  static constexpr uint32_t kSmallestNormalBits = static_cast<uint32_t>(128 - kBias) << 23;
  // 2^(1 - kBias - kMantissa), the smallest number and the step of the subnormal ones.
  static constexpr float kStep = std::bit_cast<float>(static_cast<uint32_t>(128 - kBias - kMantissa) << 23);

  static constexpr uint8_t encode(float x) {
    const uint32_t bits = std::bit_cast<uint32_t>(x), magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return 0x7f;
    const uint32_t sign = bits >> 31 << 7;
    if (magnitude >= kLargestBits) return static_cast<uint8_t>(sign | kLargest);
    uint32_t code = 0;
    if (magnitude < kSmallestNormalBits) {
      // A multiple of the step; the addition rounds it to an integer. The first normal number follows on.
      constexpr float kIntegers = 0x1p23f;
      code = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) / kStep + kIntegers) & 0x007fffffu;
    } else {
      constexpr int kDropped = 23 - kMantissa;
      const uint32_t rounded = magnitude + ((1u << (kDropped - 1)) - 1) + ((magnitude >> kDropped) & 1u);
      code = (rounded >> kDropped) - (static_cast<uint32_t>(127 - kBias) << kMantissa);
    }
    return static_cast<uint8_t>(sign | code);
  }

  static constexpr float decode(uint8_t code) {
    const uint32_t sign = static_cast<uint32_t>(code) >> 7 << 31, magnitude = code & 0x7fu;
    uint32_t bits = 0;
    if (magnitude > kLargest) {
      // e5m2 has infinity next to its largest number.
      bits = kMantissa == 2 && magnitude == kLargest + 1u ? 0x7f800000u : 0x7fc00000u;
    } else if (magnitude < 1u << kMantissa) {
      bits = std::bit_cast<uint32_t>(static_cast<float>(magnitude) * kStep);
    } else {
      bits = (magnitude << (23 - kMantissa)) + (static_cast<uint32_t>(127 - kBias) << 23);
    }
    return std::bit_cast<float>(sign | bits);
  }
};

}  // namespace float8

struct e4m3 {
  using Format = float8::Format<3, 7, 0x7e>;
  uint8_t bits;

  e4m3() = default;
  constexpr explicit e4m3(float value) : bits(Format::encode(value)) {}
  constexpr explicit operator float() const { return Format::decode(bits); }
  constexpr explicit operator double() const { return Format::decode(bits); }
};

struct e5m2 {
  using Format = float8::Format<2, 15, 0x7b>;
  uint8_t bits;

  e5m2() = default;
  constexpr explicit e5m2(float value) : bits(Format::encode(value)) {}
  constexpr explicit operator float() const { return Format::decode(bits); }
  constexpr explicit operator double() const { return Format::decode(bits); }
};

}  // namespace tessera
