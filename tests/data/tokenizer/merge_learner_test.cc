#include "data/tokenizer/merge_learner.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

namespace tessera {
namespace {

struct Plain {
  std::vector<Merge> merges;
  int64_t token_count = 0;
};

// Algorithm 1 of Sennrich, Haddow and Birch 2016 as it is printed: count all pairs anew for every merge.
Plain learn_plainly(const PieceCounts& pieces, int64_t count, int64_t min_count) {
  std::vector<std::pair<std::vector<int32_t>, int64_t>> words;
  for (const auto& [text, times] : pieces) {
    words.emplace_back();
    for (const char byte : text) words.back().first.push_back(static_cast<unsigned char>(byte));
    words.back().second = times;
  }
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  Plain plain;
  while (static_cast<int64_t>(plain.merges.size()) < count) {
    std::map<std::pair<int32_t, int32_t>, int64_t> pairs;
    for (const auto& [word, times] : words)
      for (size_t i = 0; i + 1 < word.size(); ++i) pairs[{word[i], word[i + 1]}] += times;
    const std::set<std::string> spelled(tokens.begin(), tokens.end());
    int64_t best = 0;
    Merge merge{-1, -1, static_cast<int32_t>(tokens.size())};
    for (const auto& [pair, times] : pairs) {  // rising, so the first of equals stays
      if (times <= best || spelled.contains(tokens[pair.first] + tokens[pair.second])) continue;
      best = times;
      merge.left = pair.first;
      merge.right = pair.second;
    }
    if (best < min_count) break;
    plain.merges.push_back(merge);
    tokens.push_back(tokens[merge.left] + tokens[merge.right]);
    for (auto& [word, times] : words) {
      std::vector<int32_t> joined;
      for (size_t i = 0; i < word.size(); ++i) {
        const bool here = i + 1 < word.size() && word[i] == merge.left && word[i + 1] == merge.right;
        joined.push_back(here ? merge.result : word[i]);
        if (here) ++i;
      }
      word = joined;
    }
  }
  for (const auto& [word, times] : words) plain.token_count += times * static_cast<int64_t>(word.size());
  return plain;
}

// Small alphabets make runs, overlaps and ties common.
TEST(MergeLearner, LearnsWhatCountingAnewLearns) {
  std::mt19937 random(4);
  for (int round = 0; round < 100; ++round) {
    PieceCounts pieces;
    const uint32_t letters = 1 + random() % 4;
    for (int i = 0; i < 30; ++i) {
      std::string piece;
      for (size_t length = 1 + random() % 14; piece.size() < length;)
        piece += static_cast<char>('a' + random() % letters);
      pieces[piece] += 1 + random() % 5;
    }
    const Plain expected = learn_plainly(pieces, 60, 2);
    MergeLearner learner(pieces, "<|endoftext|>");
    ASSERT_EQ(learner.learn(60, 2), expected.merges) << "round " << round;
    EXPECT_EQ(learner.token_count(), expected.token_count);
  }
}

TEST(MergeLearner, LearningInTwoPartsIsLearning) {
  const PieceCounts pieces = {{"low", 5}, {"lower", 2}, {"newest", 6}, {"widest", 3}};
  MergeLearner once(pieces, ""), twice(pieces, "");
  twice.learn(3, 1);
  EXPECT_EQ(twice.learn(5, 1), once.learn(8, 1));
}

// The example of the paper: es, est, lo, low ... (its end-of-word sign left out).
TEST(MergeLearner, ThePapersExample) {
  MergeLearner learner({{"low", 5}, {"lower", 2}, {"newest", 6}, {"widest", 3}}, "");
  learner.learn(4, 2);
  const auto& tokens = learner.tokens();
  EXPECT_EQ(std::vector<std::string>(tokens.begin() + 256, tokens.end()),
            (std::vector<std::string>{"es", "est", "lo", "low"}));
}

TEST(MergeLearner, StopsAtRarePairsAndForbiddenTokens) {
  MergeLearner learner({{"ab", 3}, {"cd", 1}, {"xy", 9}}, "xy");
  EXPECT_EQ(learner.learn(10, 2), (std::vector<Merge>{{'a', 'b', 256}}));
}

}  // namespace
}  // namespace tessera
