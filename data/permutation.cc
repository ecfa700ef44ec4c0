#include "data/permutation.h"

#include <bit>
#include <string>

#include "tensor/check.h"
#include "tensor/random.h"

namespace tessera {
namespace {

// Four rounds are enough for large domains; on small ones (a handful of samples) more are needed before all
// permutations are about equally likely.
constexpr uint32_t kRounds = 10;

}  // namespace

Permutation::Permutation(int64_t n, uint64_t seed, std::string_view source, int64_t epoch) : n_(n) {
  TESSERA_CHECK(n >= 1 && n <= int64_t{1} << 62, "a permutation of 1 to 2^62 elements");
  TESSERA_CHECK(epoch >= 0, "an epoch");
  half_bits_ = (std::bit_width(static_cast<uint64_t>(n - 1)) + 1) / 2;
  const uint64_t key = RandomStream(seed, "permutation/" + std::string(source)).bits(static_cast<uint64_t>(epoch));
  key_ = {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)};
}

uint64_t Permutation::encrypt(uint64_t value) const {
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  uint64_t left = value >> half_bits_, right = value & mask;
  for (uint32_t round = 0; round < kRounds; ++round) {
    const auto word = philox4x32({static_cast<uint32_t>(right), static_cast<uint32_t>(right >> 32), round, 0}, key_);
    const uint64_t next = left ^ (word[0] & mask);  // a half has at most 31 bits
    left = right;
    right = next;
  }
  return left << half_bits_ | right;
}

int64_t Permutation::operator()(int64_t index) const {
  TESSERA_CHECK(index >= 0 && index < n_, "an index inside the permutation");
  auto value = static_cast<uint64_t>(index);
  do value = encrypt(value);
  while (value >= static_cast<uint64_t>(n_));
  return static_cast<int64_t>(value);
}

}  // namespace tessera
