#include "data/tokenizer/bpe.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <random>
#include <string>

#include "tensor/check.h"

namespace tessera {
namespace {

std::array<int32_t, 256> identity() {
  std::array<int32_t, 256> tokens;
  std::iota(tokens.begin(), tokens.end(), 0);
  return tokens;
}

// The definition, word by word: look at all pairs, join the leftmost of the lowest rank, begin again.
std::vector<int32_t> encode_plainly(const std::vector<Merge>& merges, std::string_view piece) {
  std::map<std::pair<int32_t, int32_t>, size_t> ranks;
  for (size_t rank = 0; rank < merges.size(); ++rank) ranks[{merges[rank].left, merges[rank].right}] = rank;
  std::vector<int32_t> tokens;
  for (const char byte : piece) tokens.push_back(static_cast<unsigned char>(byte));
  while (true) {
    size_t best = merges.size(), where = 0;
    for (size_t i = 0; i + 1 < tokens.size(); ++i) {
      const auto it = ranks.find({tokens[i], tokens[i + 1]});
      if (it != ranks.end() && it->second < best) {
        best = it->second;
        where = i;
      }
    }
    if (best == merges.size()) return tokens;
    tokens[where] = merges[best].result;
    tokens.erase(tokens.begin() + static_cast<std::ptrdiff_t>(where) + 1);
  }
}

std::vector<int32_t> encode(const Bpe& bpe, std::string_view piece, Bpe::Scratch& scratch) {
  std::vector<int32_t> tokens;
  bpe.encode(piece, scratch, tokens);
  return tokens;
}

// Merges of random tokens over a small alphabet, in a random order: ranks need not follow ids.
std::vector<Merge> random_merges(std::mt19937& random) {
  std::vector<Merge> merges;
  std::vector<int32_t> tokens = {'a', 'b', 'c'};
  for (int i = 0; i < 40; ++i) {
    const int32_t left = tokens[random() % tokens.size()], right = tokens[random() % tokens.size()];
    merges.push_back({left, right, 256 + i});
    tokens.push_back(256 + i);
  }
  std::shuffle(merges.begin(), merges.end(), random);
  return merges;
}

TEST(Bpe, JoinsAsTheDefinitionSays) {
  std::mt19937 random(1);
  for (int round = 0; round < 50; ++round) {
    const std::vector<Merge> merges = random_merges(random);
    const Bpe bpe(identity(), merges);
    Bpe::Scratch scratch;
    for (int i = 0; i < 200; ++i) {
      std::string piece;
      for (size_t length = random() % 60; piece.size() < length;) piece += static_cast<char>('a' + random() % 3);
      const auto expected = encode_plainly(merges, piece);
      ASSERT_EQ(encode(bpe, piece, scratch), expected) << piece;
      ASSERT_EQ(encode(bpe, piece, scratch), expected) << "again, now remembered: " << piece;
    }
  }
}

TEST(Bpe, AppendsAndLeavesWhatIsThere) {
  const std::vector<Merge> merges = {{'a', 'b', 256}};
  const Bpe bpe(identity(), merges);
  Bpe::Scratch scratch;
  std::vector<int32_t> tokens = {7};
  bpe.encode("abab", scratch, tokens);
  bpe.encode("", scratch, tokens);
  bpe.encode("x", scratch, tokens);
  EXPECT_EQ(tokens, (std::vector<int32_t>{7, 256, 256, 'x'}));
}

TEST(Bpe, OfTwoMergesOfOnePairTheLaterCounts) {
  // As the second: (b, c) comes first. As the first it would lose.
  const std::vector<Merge> merges = {{'a', 'b', 256}, {'b', 'c', 257}, {'a', 'b', 256}};
  const Bpe bpe(identity(), merges);
  Bpe::Scratch scratch;
  EXPECT_EQ(encode(bpe, "abc", scratch), (std::vector<int32_t>{'a', 257}));
}

TEST(Bpe, ByteTokensNeedNotBeTheBytes) {
  auto tokens = identity();
  std::swap(tokens['a'], tokens['z']);
  const std::vector<Merge> merges = {{'z', 'b', 256}};
  const Bpe bpe(tokens, merges);
  Bpe::Scratch scratch;
  EXPECT_EQ(encode(bpe, "abzb", scratch), (std::vector<int32_t>{256, 'a', 'b'}));
}

// Quadratic merging of a piece like this would take minutes.
TEST(Bpe, LongPieces) {
  std::vector<Merge> merges = {{'a', 'a', 256}};
  for (int32_t i = 1; i < 10; ++i) merges.push_back({255 + i, 255 + i, 256 + i});
  const Bpe bpe(identity(), merges);
  Bpe::Scratch scratch;
  constexpr size_t kLength = 1 << 20;
  EXPECT_EQ(encode(bpe, std::string(kLength, 'a'), scratch), std::vector<int32_t>(kLength >> 10, 265));
}

TEST(Bpe, RefusesAPieceOverTheLimit) {
  const Bpe bpe(identity(), {});
  Bpe::Scratch scratch;
  EXPECT_EQ(encode(bpe, std::string(Bpe::kMostPieceBytes, 'a'), scratch).size(), Bpe::kMostPieceBytes);
  EXPECT_THROW(encode(bpe, std::string(Bpe::kMostPieceBytes + 1, 'a'), scratch), DataError);
}

}  // namespace
}  // namespace tessera
