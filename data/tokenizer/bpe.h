// Byte-pair merges of one piece of text.
//
// A piece starts as its bytes, one token each. Of all neighbours that a merge joins, those with the lowest rank are
// joined, leftmost first, until no merge applies. Sennrich, Haddow and Birch 2016. O(n log n) for n bytes.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace tessera {

// left, right -> result. The rank of a merge is its place in the list.
struct Merge {
  int32_t left;
  int32_t right;
  int32_t result;
  bool operator==(const Merge&) const = default;
};

class Bpe {
 public:
  // byte_tokens[b] is the token of byte b. Of two merges with the same pair the later one counts (as in Hugging Face's
  // tokenizers).
  Bpe(const std::array<int32_t, 256>& byte_tokens, std::span<const Merge> merges);

  // What one thread needs while it encodes, and remembers: the tokens of short pieces that it has seen, in a table of
  // fixed size (3 MiB).
  class Scratch {
   public:
    Scratch();
    ~Scratch();
    Scratch(Scratch&&) noexcept;
    Scratch& operator=(Scratch&&) noexcept;

   private:
    friend class Bpe;
    struct State;
    std::unique_ptr<State> state_;
  };

  // A piece takes about 30 times its bytes while it is encoded. What is longer than this is hardly text (a line of one
  // letter, a binary file in letters), and would take a machine's memory.
  static constexpr size_t kMostPieceBytes = size_t{4} << 20;

  // Appends the tokens of `piece`. A scratch serves one Bpe only. Throws DataError for a piece of more than
  // kMostPieceBytes.
  void encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& tokens) const;

 private:
  struct Slot {
    uint64_t pair;
    int32_t rank;
    int32_t result;
  };
  const Slot* find(int32_t left, int32_t right) const;
  void merge(std::string_view piece, Scratch::State& state, std::vector<int32_t>& tokens) const;

  std::array<int32_t, 256> byte_tokens_;
  std::vector<Slot> table_;  // open addressing; a power of two, at most half full
};

}  // namespace tessera
