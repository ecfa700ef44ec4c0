#include "data/tokenizer/bpe.h"

#include <fmt/core.h>
#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "tensor/check.h"

namespace tessera {
namespace {

constexpr uint64_t kNoPair = std::numeric_limits<uint64_t>::max();
constexpr int32_t kNone = -1;

uint64_t pair_of(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

// Fibonacci hashing: the high bits of the product are well mixed.
size_t first_slot(uint64_t pair, size_t slots) {
  return static_cast<size_t>((pair * 0x9E3779B97F4A7C15u) >> (64 - std::countr_zero(slots)));
}

// A piece and its tokens, or nothing (length 0).
struct Remembered {
  static constexpr size_t kBytes = 22;
  static constexpr size_t kTokens = 6;
  std::array<char, kBytes> bytes;
  uint8_t length = 0;
  uint8_t count = 0;
  std::array<int32_t, kTokens> tokens;
};

constexpr size_t kRemembered = 1 << 16;

struct Symbol {
  int32_t token;  // kNone: merged into the one before
  int32_t previous;
  int32_t next;
};

struct Candidate {
  int32_t rank;
  int32_t position;
  // std::*_heap keep the greatest in front: that is the lowest rank, then the leftmost.
  bool operator<(const Candidate& other) const {
    return rank != other.rank ? rank > other.rank : position > other.position;
  }
};

}  // namespace

struct Bpe::Scratch::State {
  std::vector<Symbol> symbols;
  std::vector<Candidate> queue;
  std::vector<Remembered> remembered = std::vector<Remembered>(kRemembered);
};

Bpe::Scratch::Scratch() : state_(std::make_unique<State>()) {}
Bpe::Scratch::~Scratch() = default;
Bpe::Scratch::Scratch(Scratch&&) noexcept = default;
Bpe::Scratch& Bpe::Scratch::operator=(Scratch&&) noexcept = default;

Bpe::Bpe(const std::array<int32_t, 256>& byte_tokens, std::span<const Merge> merges) : byte_tokens_(byte_tokens) {
  table_.assign(std::bit_ceil(2 * merges.size() + 2), Slot{kNoPair, 0, 0});
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const uint64_t pair = pair_of(merges[rank].left, merges[rank].right);
    size_t slot = first_slot(pair, table_.size());
    while (table_[slot].pair != kNoPair && table_[slot].pair != pair) slot = (slot + 1) & (table_.size() - 1);
    table_[slot] = {pair, static_cast<int32_t>(rank), merges[rank].result};
  }
}

const Bpe::Slot* Bpe::find(int32_t left, int32_t right) const {
  const uint64_t pair = pair_of(left, right);
  size_t slot = first_slot(pair, table_.size());
  while (table_[slot].pair != kNoPair) {
    if (table_[slot].pair == pair) return &table_[slot];
    slot = (slot + 1) & (table_.size() - 1);
  }
  return nullptr;
}

void Bpe::encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& tokens) const {
  if (piece.empty()) return;
  if (piece.size() == 1) {
    tokens.push_back(byte_tokens_[static_cast<unsigned char>(piece[0])]);
    return;
  }
  Scratch::State& state = *scratch.state_;
  if (piece.size() > Remembered::kBytes) return merge(piece, state, tokens);
  Remembered& entry = state.remembered[XXH3_64bits(piece.data(), piece.size()) % kRemembered];
  if (piece == std::string_view(entry.bytes.data(), entry.length)) {
    tokens.insert(tokens.end(), entry.tokens.begin(), entry.tokens.begin() + entry.count);
    return;
  }
  const size_t before = tokens.size();
  merge(piece, state, tokens);
  const size_t count = tokens.size() - before;
  if (count > Remembered::kTokens) return;
  std::memcpy(entry.bytes.data(), piece.data(), piece.size());
  entry.length = static_cast<uint8_t>(piece.size());
  entry.count = static_cast<uint8_t>(count);
  std::copy_n(tokens.end() - static_cast<ptrdiff_t>(count), count, entry.tokens.begin());
}

void Bpe::merge(std::string_view piece, Scratch::State& state, std::vector<int32_t>& tokens) const {
  if (piece.size() > kMostPieceBytes)
    throw DataError(
        fmt::format("a piece of text of {} bytes has nothing to split at, and at most {} are encoded as one; break the "
                    "text up, or leave it out",
                    piece.size(), kMostPieceBytes));
  auto& symbols = state.symbols;
  auto& queue = state.queue;
  const int32_t size = static_cast<int32_t>(piece.size());
  symbols.resize(piece.size());
  queue.clear();
  for (int32_t i = 0; i < size; ++i)
    symbols[i] = {byte_tokens_[static_cast<unsigned char>(piece[i])], i - 1, i + 1 < size ? i + 1 : kNone};
  const auto merge_at = [&](int32_t position) -> const Slot* {
    const Symbol& left = symbols[position];
    return left.token == kNone || left.next == kNone ? nullptr : find(left.token, symbols[left.next].token);
  };
  for (int32_t i = 0; i + 1 < size; ++i)
    if (const Slot* slot = merge_at(i)) queue.push_back({slot->rank, i});
  std::make_heap(queue.begin(), queue.end());

  const auto offer = [&](int32_t position) {
    if (const Slot* slot = merge_at(position)) {
      queue.push_back({slot->rank, position});
      std::push_heap(queue.begin(), queue.end());
    }
  };
  while (!queue.empty()) {
    const Candidate best = queue.front();
    std::pop_heap(queue.begin(), queue.end());
    queue.pop_back();
    // The neighbours may have changed since this candidate was queued.
    const Slot* slot = merge_at(best.position);
    if (slot == nullptr || slot->rank != best.rank) continue;
    Symbol& left = symbols[best.position];
    Symbol& right = symbols[left.next];
    left.token = slot->result;
    right.token = kNone;
    left.next = right.next;
    if (left.next != kNone) symbols[left.next].previous = best.position;
    if (left.previous != kNone) offer(left.previous);
    offer(best.position);
  }
  for (int32_t i = 0; i != kNone; i = symbols[i].next) tokens.push_back(symbols[i].token);
  constexpr size_t kKept = 1 << 16;  // what a long piece took is given back
  if (piece.size() > kKept) state.symbols = {}, state.queue = {};
}

}  // namespace tessera
