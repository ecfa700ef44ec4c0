#include "data/order/permutation.h"

#include <bit>
#include <string>

#include "tensor/check.h"

namespace tessera {
namespace {

// Four rounds are enough for large domains; on small ones (a handful of samples) more are needed before all
// permutations are about equally likely.
constexpr uint32_t kRounds = 10;

}  // namespace

Permutation::Permutation(int64_t n, uint64_t key)
    : n_(n), key_{static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)} {
  TESSERA_CHECK(n >= 1 && n <= int64_t{1} << 62, "a permutation of 1 to 2^62 elements");
  half_bits_ = (std::bit_width(static_cast<uint64_t>(n - 1)) + 1) / 2;
  swaps_ = n >= 2 && philox4x32({0, 0, kRounds, 0}, key_)[0] % 2 == 1;
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
  if (swaps_ && value < 2) value = 1 - value;
  return static_cast<int64_t>(value);
}

SourceOrder::SourceOrder(int64_t n, uint64_t seed, std::string_view source)
    : n_(n), keys_(seed, "permutation/" + std::string(source)) {
  TESSERA_CHECK(n >= 1, "a source of at least one sample");
}

int64_t SourceOrder::operator()(int64_t index) const {
  TESSERA_CHECK(index >= 0, "the number of a sample");
  const Permutation epoch(n_, keys_.bits(static_cast<uint64_t>(index / n_)));
  return epoch(index % n_);
}

}  // namespace tessera
