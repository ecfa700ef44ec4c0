// Counter-based random numbers: every number is a function of (seed, purpose, global index), so a shard of any mesh
// draws its own values and there is no generator state to save.
//
// Philox4x32-10: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "tensor/tensor.h"

namespace tessera {

class Context;

// Ten rounds of Philox on a 128-bit counter under a 64-bit key.
std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// A stream of numbers: what they are for, under a seed. The purpose is a global name ("blocks.3.attention.qkv").
class RandomStream {
 public:
  RandomStream(uint64_t seed, std::string_view purpose);

  uint64_t bits(uint64_t index) const;                   // 64 uniform bits
  double uniform(uint64_t index) const;                  // in [0, 1), 53 bits
  double normal(uint64_t index) const;                   // mean 0, variance 1
  uint64_t below(uint64_t index, uint64_t bound) const;  // in [0, bound), bias under 2^-64 * bound

  // {normal(2 * pair), normal(2 * pair + 1)} for the price of one of them: Box and Muller, "A note on the generation of
  // random normal deviates", 1958.
  std::array<double, 2> normal_pair(uint64_t pair) const;

 private:
  std::array<uint32_t, 4> block(uint64_t index) const;

  std::array<uint32_t, 2> key_;
  uint64_t purpose_;
};

// Overwrites x with standard_deviation * normal(first_index + i), rounded to x's dtype. first_index is the global
// index of x's first element.
void fill_normal(const Context& context, Tensor x, const RandomStream& stream, int64_t first_index,
                 double standard_deviation);

}  // namespace tessera
