#include "data/tokenizer/text_sample.h"

#include <gtest/gtest.h>

#include <cmath>

#include "data/tokenizer/utf8.h"

namespace tessera {
namespace {

TEST(TextSample, ACorpusWithinTheBudgetIsKeptWhole) {
  TextSample sample(1000);
  sample.add("first");
  sample.add(std::string(600, 'x'));
  EXPECT_EQ(sample.bytes(), 605);
  std::string joined;
  for (const std::string& section : sample.take()) joined += section;
  EXPECT_EQ(joined, "first" + std::string(600, 'x'));
}

TEST(TextSample, StaysWithinTheBudgetAndComesFromEverywhere) {
  constexpr int kDocuments = 20000, kParts = 10;
  constexpr int64_t kBudget = 160'000, kDocumentBytes = 80;
  TextSample sample(kBudget);
  for (int i = 0; i < kDocuments; ++i) {
    std::string document = std::to_string(i);
    document.resize(kDocumentBytes, ' ');
    sample.add(document);
    ASSERT_LE(sample.bytes(), kBudget);
  }
  EXPECT_GT(sample.bytes(), kBudget - kDocumentBytes - 1);
  std::vector<double> parts(kParts);
  int last = -1;
  for (const std::string& section : sample.take()) {
    const int document = std::stoi(section);
    EXPECT_GT(document, last) << "the order of the corpus";
    last = document;
    parts[static_cast<size_t>(document) * kParts / kDocuments] += 1;
  }
  // 2000 documents over 10 parts: hypergeometric, variance 200 * 0.9 * 0.9; five standard deviations.
  for (const double part : parts) EXPECT_NEAR(part, 200, 5 * std::sqrt(200 * 0.9 * 0.9));
}

TEST(TextSample, LongDocumentsAreSampledInside) {
  TextSample sample(100'000);
  std::string document;
  while (document.size() < 3'000'000) document += "\u65E5\u672C\u8A9E\U0001F600";
  sample.add(document);
  const auto sections = sample.take();
  EXPECT_GE(sections.size(), 16u);
  for (const std::string& section : sections) EXPECT_EQ(find_invalid_utf8(section), std::nullopt);
}

TEST(TextSample, TheSameCorpusGivesTheSameSample) {
  const auto draw = [] {
    TextSample sample(5000);
    for (int i = 0; i < 1000; ++i) sample.add("document " + std::to_string(i * i));
    return sample.take();
  };
  EXPECT_EQ(draw(), draw());
}

TEST(TextSample, ATinyBudgetStillKeepsOneSection) {
  TextSample sample(1);
  sample.add("one");
  sample.add("two");
  EXPECT_EQ(sample.take().size(), 1u);
}

TEST(Utf8Prefix, EndsBetweenCharacters) {
  EXPECT_EQ(utf8_prefix("abcdef", 4), "abcd");
  EXPECT_EQ(utf8_prefix("abc", 4), "abc");
  EXPECT_EQ(utf8_prefix("abc\u00E9", 4), "abc");
  EXPECT_EQ(utf8_prefix("a\U0001F600", 4), "a");
  EXPECT_EQ(utf8_prefix("\U0001F600x", 4), "\U0001F600");
  EXPECT_EQ(utf8_prefix("\x80\x80\x80\x80\x80\x80", 4).size(), 1u);
}

}  // namespace
}  // namespace tessera
