#include "data/tokenizer/piece_counter.h"

#include <gtest/gtest.h>

#include <map>

#include "tests/data/tokenizer/tokenizer_texts.h"

namespace tessera {
namespace {

std::map<std::string, int64_t> sorted(const PieceCounts& counts) { return {counts.begin(), counts.end()}; }

TEST(PieceCounter, Counts) {
  const Pretokenizer pretokenizer({SplitPattern::Gpt2});
  PieceCounter counter(pretokenizer, 1, 100);
  counter.add("a b a");
  counter.add(" b b");
  EXPECT_EQ(sorted(counter.finish()), (std::map<std::string, int64_t>{{"a", 1}, {" b", 3}, {" a", 1}}));
  EXPECT_EQ(counter.finish().size(), 0u);
}

TEST(PieceCounter, ThreadsAndBatchesDoNotChangeCounts) {
  const Pretokenizer pretokenizer({SplitPattern::Llama3});
  const auto count = [&](int threads, int64_t batch_bytes) {
    std::mt19937 random(2);
    PieceCounter counter(pretokenizer, threads, 1 << 20, batch_bytes);
    for (int i = 0; i < 300; ++i) counter.add(random_text(random, 200));
    return sorted(counter.finish());
  };
  const auto expected = count(1, 1 << 30);
  EXPECT_GT(expected.size(), 1000u);
  EXPECT_EQ(count(4, 1 << 30), expected);
  EXPECT_EQ(count(1, 1000), expected);
  EXPECT_EQ(count(3, 5000), expected);
}

TEST(PieceCounter, ForgetsTheRarestWhateverTheNumberOfThreads) {
  const Pretokenizer pretokenizer({SplitPattern::Gpt2});
  for (const int threads : {1, 3}) {
    PieceCounter counter(pretokenizer, threads, 8, 1000);
    counter.add("a a a a");  // 1 + 3
    for (int i = 0; i < 3; ++i) counter.add(" frequent other");
    for (const char* rare : {" ma", " mb", " mc", " md", " me"}) counter.add(rare);
    const auto counts = sorted(counter.finish());
    // Nine pieces: six stay, of the rare ones those that sort first (a space sorts before letters).
    EXPECT_EQ(counts, (std::map<std::string, int64_t>{
                          {" a", 3}, {" frequent", 3}, {" other", 3}, {" ma", 1}, {" mb", 1}, {" mc", 1}}));
    EXPECT_EQ(counter.pruned_pieces(), 3);
    EXPECT_EQ(counter.pruned_bytes(), 7);
  }
}

TEST(PieceCounter, VeryLongPiecesAreCountedInParts) {
  const Pretokenizer pretokenizer({SplitPattern::Gpt2});
  PieceCounter counter(pretokenizer, 1, 100);
  counter.add(std::string(2 * PieceCounter::kMaxPieceBytes + 1, 'x'));
  EXPECT_EQ(sorted(counter.finish()),
            (std::map<std::string, int64_t>{{std::string(PieceCounter::kMaxPieceBytes, 'x'), 2}, {"x", 1}}));
}

}  // namespace
}  // namespace tessera
