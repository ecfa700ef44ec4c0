// A keyed permutation of [0, n) that is computed, not stored: where the j-th sample of an epoch lies.
//
// A balanced Feistel network on the smallest domain 4^h >= n, its round function Philox4x32-10 (Luby and Rackoff 1988:
// a Feistel network of pseudo-random functions is a pseudo-random permutation); outputs outside [0, n) are put through
// again until one is inside (cycle walking: Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). The
// domain is less than 4n + 1, so that takes fewer than four passes on average. A Feistel network on four or more bits
// is an even permutation, which shows after cycle walking when n is small; so a last bit of the key swaps the first two
// outputs or not.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "tensor/context/random.h"

namespace tessera {

class Permutation {
 public:
  Permutation(int64_t n, uint64_t key);  // 1 <= n <= 2^62

  // The image of index in [0, n): a bijection, O(1), no memory.
  int64_t operator()(int64_t index) const;

  int64_t size() const { return n_; }

 private:
  uint64_t encrypt(uint64_t value) const;

  int64_t n_;
  int half_bits_;  // h: the domain is 4^h
  std::array<uint32_t, 2> key_;
  bool swaps_;  // outputs 0 and 1
};

// The order in which a source of n samples gives them: epoch after epoch, each a permutation of its own, keyed by
// (seed, source name, epoch).
class SourceOrder {
 public:
  SourceOrder(int64_t n, uint64_t seed, std::string_view source);

  // The sample, in [0, n), that is the source's index-th of the whole run: number index % n of epoch index / n.
  int64_t operator()(int64_t index) const;

 private:
  int64_t n_;
  RandomStream keys_;  // of the epochs
};

}  // namespace tessera
