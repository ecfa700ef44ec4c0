#include "data/tokenizer/pretokenizer.h"

#include <gtest/gtest.h>

#include <thread>

#include "tensor/check.h"
#include "tests/data/tokenizer/tokenizer_texts.h"

namespace tessera {
namespace {

using Pieces = std::vector<std::string>;

Pieces split(const Pretokenizer& pretokenizer, std::string_view text) {
  Pieces pieces;
  Pretokenizer::Scratch scratch;
  pretokenizer.split(text, scratch, [&](std::string_view piece) { pieces.emplace_back(piece); });
  return pieces;
}

Pieces split(SplitPattern pattern, std::string_view text) { return split(Pretokenizer({pattern}), text); }

TEST(Pretokenizer, Gpt2) {
  EXPECT_EQ(split(SplitPattern::Gpt2, "Hello  world, don't!\n\n x1 DON'T"),
            (Pieces{"Hello", " ", " world", ",", " don", "'t", "!", "\n\n", " x", "1", " DON", "'", "T"}));
  EXPECT_EQ(split(SplitPattern::Gpt2, "12345   "), (Pieces{"12345", "   "}));
}

TEST(Pretokenizer, Llama3) {
  EXPECT_EQ(split(SplitPattern::Llama3, "DON'T x=12345;\n\n  (end"),
            (Pieces{"DON", "'T", " x", "=", "123", "45", ";\n\n", " ", " (", "end"}));
  // The long s folds to s, as in Oniguruma.
  EXPECT_EQ(split(SplitPattern::Llama3, "it'\u017F"), (Pieces{"it", "'\u017F"}));
}

TEST(Pretokenizer, Qwen2CutsEveryDigit) {
  EXPECT_EQ(split(SplitPattern::Qwen2, "a 123"), (Pieces{"a", " ", "1", "2", "3"}));
}

TEST(Pretokenizer, Gpt4oCutsWhereLowerTurnsToUpper) {
  EXPECT_EQ(split(SplitPattern::Gpt4o, "camelCaseHTTPServer's a/b"),
            (Pieces{"camel", "Case", "HTTPServer's", " a", "/b"}));
}

TEST(Pretokenizer, AppliesSeveralPatternsOneAfterAnother) {
  const Pretokenizer pretokenizer({SplitPattern::Digit, SplitPattern::Gpt2});
  EXPECT_EQ(split(pretokenizer, "ab 12 c"), (Pieces{"ab", " ", "1", "2", " c"}));
}

TEST(Pretokenizer, KeepsWhatLiesBetweenMatches) {
  EXPECT_EQ(split(SplitPattern::DigitRun, "ab12c34"), (Pieces{"ab", "12", "c", "34"}));
  EXPECT_EQ(split(SplitPattern::ThreeDigits, "1234x"), (Pieces{"123", "4", "x"}));
}

TEST(Pretokenizer, WithoutPatternsTextIsOnePiece) {
  EXPECT_EQ(split(Pretokenizer({}), "a b\nc"), (Pieces{"a b\nc"}));
  EXPECT_EQ(split(Pretokenizer({}), ""), Pieces{});
}

// Oniguruma's \s is the property White_Space; PCRE2's own \s would add U+180E.
TEST(Pretokenizer, WhiteSpaceIsTheUnicodeProperty) {
  for (const char* space : {"\u0085", "\u00A0", "\u2028", "\u3000", "\v"})
    EXPECT_EQ(split(SplitPattern::Gpt2, std::string("a") + space + "b"), (Pieces{"a", space, "b"}));
  EXPECT_EQ(split(SplitPattern::Gpt2, "!\u180E!"), (Pieces{"!\u180E!"}));
  EXPECT_EQ(split(SplitPattern::Gpt2, "!\u200B!"), (Pieces{"!\u200B!"}));
}

TEST(Pretokenizer, PiecesOfAnyTextMakeUpTheText) {
  std::mt19937 random(5);
  const std::string text = random_text(random, 20000);
  for (const SplitPattern pattern : {SplitPattern::Gpt2, SplitPattern::Llama3, SplitPattern::Qwen2, SplitPattern::Gpt4o,
                                     SplitPattern::Digit, SplitPattern::DigitRun, SplitPattern::ThreeDigits}) {
    std::string joined;
    size_t pieces = 0;
    for (const std::string& piece : split(pattern, text)) {
      EXPECT_FALSE(piece.empty());
      joined += piece;
      ++pieces;
    }
    EXPECT_EQ(joined, text);
    EXPECT_GT(pieces, 1000u);
  }
}

// Runs of a million characters must neither stop at a limit nor take quadratic time.
TEST(Pretokenizer, LongRuns) {
  constexpr size_t kLength = 1'000'000;
  for (const SplitPattern pattern :
       {SplitPattern::Gpt2, SplitPattern::Llama3, SplitPattern::Qwen2, SplitPattern::Gpt4o}) {
    for (const char character : {' ', '\n', 'a', 'A', '-'}) {
      const std::string run(kLength, character);
      EXPECT_LE(split(pattern, run).size(), 1u) << character;
      // The last white space before a word stands apart.
      EXPECT_LE(split(pattern, run + "\u65E5").size(), 3u) << character;
    }
  }
}

TEST(Pretokenizer, PatternsAreFoundByTheirSpellingAlone) {
  for (const SplitPattern pattern : {SplitPattern::Gpt2, SplitPattern::Llama3, SplitPattern::Digit})
    EXPECT_EQ(find_split_pattern(split_regex(pattern)), pattern);
  try {
    find_split_pattern("(a+)+$");
    FAIL();
  } catch (const DataError& error) {
    EXPECT_NE(std::string(error.what()).find("(a+)+$"), std::string::npos);
  }
}

TEST(Pretokenizer, ThreadsShareOne) {
  std::mt19937 random(6);
  const std::string text = random_text(random, 20000);
  const Pretokenizer pretokenizer({SplitPattern::Llama3});
  const Pieces expected = split(pretokenizer, text);
  std::vector<Pieces> found(4);
  {
    std::vector<std::jthread> threads;
    for (Pieces& pieces : found) threads.emplace_back([&] { pieces = split(pretokenizer, text); });
  }
  for (const Pieces& pieces : found) EXPECT_EQ(pieces, expected);
}

}  // namespace
}  // namespace tessera
