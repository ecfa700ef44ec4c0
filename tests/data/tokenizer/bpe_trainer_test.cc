#include "data/tokenizer/bpe_trainer.h"

#include <gtest/gtest.h>

#include <set>

#include "tensor/check.h"
#include "tests/data/tokenizer/tokenizer_texts.h"

namespace tessera {
namespace {

BpeTrainer::NextDocument documents(std::vector<std::string> texts) {
  return [texts = std::move(texts), next = size_t{0}](std::string& document) mutable {
    if (next == texts.size()) return false;
    document = texts[next++];
    return true;
  };
}

// Sentences of made-up words, the early ones more frequent.
std::vector<std::string> corpus(int count) {
  std::mt19937 random(8);
  std::vector<std::string> words;
  for (int i = 0; i < 400; ++i) {
    std::string word = " ";
    for (uint32_t syllables = 1 + random() % 3; syllables > 0; --syllables) {
      word += "bcdfghklmnprst"[random() % 14];
      word += "aeiou"[random() % 5];
    }
    words.push_back(word);
  }
  std::vector<std::string> texts;
  for (int i = 0; i < count; ++i) {
    std::string text;
    for (int w = 0; w < 40; ++w) text += words[std::min(random() % 400, random() % 400)];
    texts.push_back(text + " \u65E5\u672C 12.");
  }
  return texts;
}

std::vector<int32_t> encode(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<int32_t> tokens;
  tokenizer.encode(text, tokens);
  return tokens;
}

TEST(BpeTrainer, TheVocabularyIsBytesMergesAndEndOfText) {
  BpeTrainer trainer({.vocab_size = 500});
  const Tokenizer tokenizer = trainer.train(documents(corpus(300)));
  EXPECT_EQ(tokenizer.vocab_size(), 500);
  EXPECT_EQ(tokenizer.end_of_text(), 499);
  EXPECT_EQ(trainer.report().merges, 500 - 257);
  EXPECT_EQ(trainer.report().documents, 300);
  std::set<std::string> tokens;
  for (int32_t id = 0; id < 500; ++id) {
    const std::string bytes = tokenizer.decode(std::vector<int32_t>{id});
    EXPECT_TRUE(tokens.insert(bytes).second) << id;
    if (id < 256) {
      EXPECT_EQ(bytes, std::string(1, static_cast<char>(id)));
    } else if (id < 499) {
      EXPECT_GE(bytes.size(), 2u);
    }
  }
}

// Encoding merges by rank; training merged in that order: both must leave the same tokens.
TEST(BpeTrainer, EncodingTheCorpusGivesTheTokensThatTrainingLeft) {
  const auto texts = corpus(200);
  for (const SplitPattern pattern : {SplitPattern::Gpt2, SplitPattern::Llama3}) {
    BpeTrainer trainer({.vocab_size = 600, .pattern = pattern});
    const Tokenizer tokenizer = trainer.train(documents(texts));
    int64_t tokens = 0, bytes = 0;
    for (const std::string& text : texts) {
      const auto encoding = encode(tokenizer, text);
      EXPECT_EQ(tokenizer.decode(encoding), text);
      tokens += static_cast<int64_t>(encoding.size());
      bytes += static_cast<int64_t>(text.size());
    }
    EXPECT_EQ(tokens, trainer.report().tokens);
    EXPECT_EQ(bytes, trainer.report().bytes);
    EXPECT_LT(tokens * 2, bytes);
  }
}

TEST(BpeTrainer, ThreadsDoNotChangeTheResult) {
  const auto train = [](int threads) {
    BpeTrainer trainer({.vocab_size = 700, .sample_bytes = 20'000, .threads = threads, .max_pieces = 200});
    const std::string fingerprint = trainer.train(documents(corpus(500))).fingerprint();
    EXPECT_GT(trainer.report().pruned_pieces, 0);
    EXPECT_LE(trainer.report().sampled_bytes, 20'000);
    EXPECT_GT(trainer.report().sampled_bytes, 18'000);
    return fingerprint;
  };
  EXPECT_EQ(train(1), train(4));
}

TEST(BpeTrainer, SavedTokenizersComeBackTheSame) {
  BpeTrainer trainer({.vocab_size = 400, .pattern = SplitPattern::Llama3});
  const Tokenizer tokenizer = trainer.train(documents(corpus(100)));
  const std::string path = ::testing::TempDir() + "trained.json";
  tokenizer.save(path);
  const Tokenizer loaded = Tokenizer::load(path);
  EXPECT_EQ(loaded.fingerprint(), tokenizer.fingerprint());
  std::mt19937 random(12);
  const std::string text = random_text(random, 3000);
  EXPECT_EQ(encode(loaded, text), encode(tokenizer, text));
}

TEST(BpeTrainer, ASmallCorpusGivesASmallerVocabulary) {
  BpeTrainer trainer({.vocab_size = 10'000});
  const Tokenizer tokenizer = trainer.train(documents({"aaaa aaaa"}));
  EXPECT_EQ(trainer.report().merges, tokenizer.vocab_size() - 257);
  EXPECT_GT(trainer.report().merges, 0);
  EXPECT_LT(trainer.report().merges, 10);
}

// A document longer than a section is counted in sections; what is cut is one piece for each of them.
TEST(BpeTrainer, LongDocuments) {
  std::string text;
  while (text.size() < 5u << 20) text += " word\u00E9s";
  BpeTrainer trainer({.vocab_size = 270, .threads = 2});
  const Tokenizer tokenizer = trainer.train(documents({text}));
  EXPECT_EQ(encode(tokenizer, " word\u00E9s").size(), 1u);
  EXPECT_EQ(trainer.report().bytes, static_cast<int64_t>(text.size()));
}

TEST(BpeTrainer, NoTextIsAnError) {
  BpeTrainer trainer({.vocab_size = 300});
  EXPECT_THROW(trainer.train(documents({})), DataError);
  EXPECT_THROW(trainer.train(documents({"", ""})), DataError);
}

TEST(BpeTrainer, TextThatIsNotUtf8IsNamed) {
  BpeTrainer trainer({.vocab_size = 300});
  try {
    trainer.train(documents({"good", "not \xFF good"}));
    FAIL();
  } catch (const DataError& error) {
    EXPECT_NE(std::string(error.what()).find("document 1 of the corpus is not UTF-8 at byte offset 4"),
              std::string::npos)
        << error.what();
  }
}

TEST(BpeTrainer, OptionsOutOfRangeAreNamed) {
  const auto said = [](const BpeTrainerOptions& options) -> std::string {
    try {
      BpeTrainer trainer(options);
      return "";
    } catch (const UsageError& error) {
      return error.what();
    }
  };
  EXPECT_EQ(said({.vocab_size = 257}), "");
  EXPECT_NE(said({.vocab_size = 256}).find("vocab_size = 256"), std::string::npos);
  EXPECT_NE(said({.vocab_size = 1 << 30}).find("vocab_size"), std::string::npos);
  EXPECT_NE(said({.sample_bytes = -1}).find("sample_bytes"), std::string::npos);
  EXPECT_NE(said({.threads = 0}).find("threads"), std::string::npos);
  EXPECT_NE(said({.max_pieces = 1}).find("max_pieces"), std::string::npos);
  EXPECT_NE(said({.min_count = 0}).find("min_count"), std::string::npos);
}

}  // namespace
}  // namespace tessera
