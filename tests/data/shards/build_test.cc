#include "data/shards/build.h"

#include <gtest/gtest.h>

#include "data/shards/token_dataset.h"
#include "data/tokenizer/tokenizer.h"
#include "tensor/check.h"
#include "tests/data/shards/shards.h"
#include "tests/support/program.h"

namespace tessera {
namespace {

using namespace testing_data;

std::vector<std::string> decode_all(const std::string& directory, const Tokenizer& tokenizer) {
  std::vector<std::string> texts;
  const TokenDataset dataset(directory);
  for (const TokenShard& shard : dataset.shards()) {
    shard.verify();
    for (int64_t d = 0; d < shard.documents(); ++d) {
      std::vector<int32_t> tokens(shard.document(d).size() - 1);
      shard.read(shard.document(d).begin, tokens);
      texts.push_back(tokenizer.decode(tokens));
    }
  }
  return texts;
}

class BuildTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::mt19937 random(1);
    std::string lines;
    for (int d = 0; d < 500; ++d) {
      texts_.push_back("document " + std::to_string(d) + " " + std::string(random() % 300, 'x') + " \xC3\xA9");
      lines += "{\"text\": \"" + texts_.back() + "\"}\n";
    }
    write_file(dir_ / "corpus.jsonl", lines);
    options_.inputs = {dir_ / "corpus.jsonl"};
    options_.output = dir_ / "out";
    options_.validation_fraction = 0.1;
    options_.shard_tokens = 20'000;
  }

  BuildResult build() { return build_shards(options_, tokenizer_); }

  // Nothing of a build that failed is left.
  void expect_nothing_left(const std::string& directory) {
    if (!std::filesystem::exists(directory)) return;
    for (const auto& entry : std::filesystem::directory_iterator(directory)) ADD_FAILURE() << entry.path();
  }

  TempDirectory dir_;
  std::vector<std::string> texts_;
  BuildOptions options_;
  Tokenizer tokenizer_ = Tokenizer::bytes();
};

TEST_F(BuildTest, EveryDocumentIsInOneSplitInOrder) {
  const BuildResult result = build();
  const auto train = decode_all(dir_ / "out/train", tokenizer_);
  const auto validation = decode_all(dir_ / "out/validation", tokenizer_);
  EXPECT_EQ(result.train.documents, std::ssize(train));
  EXPECT_EQ(result.validation.documents, std::ssize(validation));
  EXPECT_EQ(result.train.tokens, TokenDataset(dir_ / "out/train").tokens());
  EXPECT_GT(result.train.shards, 3);
  EXPECT_EQ(result.train.shards, std::ssize(TokenDataset(dir_ / "out/train").shards()));
  EXPECT_EQ(result.corpus.documents, 500);
  // Binomial(500, 0.1): mean 50, standard deviation 6.7.
  EXPECT_NEAR(std::ssize(validation), 50, 34);
  size_t t = 0, v = 0;
  for (const std::string& text : texts_) {
    if (t < train.size() && train[t] == text)
      ++t;
    else if (v < validation.size() && validation[v] == text)
      ++v;
    else
      FAIL() << text;
  }
  EXPECT_EQ(t + v, train.size() + validation.size());
  expect_nothing_left(dir_ / "out/train.building");
}

TEST_F(BuildTest, ThreadsDoNotMatterAndSeedsDo) {
  options_.threads = 1;
  build();
  options_.threads = 5;
  options_.output = dir_ / "five";
  build();
  for (const char* file : {"train/shard-000000.h5", "train/shard-000001.h5", "validation/shard-000000.h5"})
    EXPECT_TRUE(read_file(dir_ / "out/" + file) == read_file(dir_ / "five/" + file)) << file;
  options_.output = dir_ / "seed";
  options_.seed = 2;
  build();
  EXPECT_NE(decode_all(dir_ / "seed/validation", tokenizer_), decode_all(dir_ / "out/validation", tokenizer_));
}

TEST_F(BuildTest, RefusesToOverwriteUnlessTold) {
  build();
  const std::string before = read_file(dir_ / "out/train/shard-000000.h5");
  options_.seed = 2;
  EXPECT_NE(message_of<UsageError>([&] { build(); }).find(dir_ / "out/train is not empty"), std::string::npos);
  EXPECT_TRUE(read_file(dir_ / "out/train/shard-000000.h5") == before);

  options_.existing = ExistingShards::Replace;
  options_.shard_tokens = 1 << 30;
  build();
  EXPECT_EQ(TokenDataset(dir_ / "out/train").shards().size(), 1u) << "no old shard among the new ones";
  options_.validation_fraction = 0;
  build();
  EXPECT_FALSE(std::filesystem::exists(dir_ / "out/validation")) << "the old validation split went with the old build";
  EXPECT_EQ(decode_all(dir_ / "out/train", tokenizer_), texts_);

  write_file(dir_ / "out/train/precious.txt", "mine");
  EXPECT_NE(message_of<UsageError>([&] { build(); }).find("precious.txt"), std::string::npos);
  EXPECT_EQ(read_file(dir_ / "out/train/precious.txt"), "mine");
}

TEST_F(BuildTest, AFailedBuildChangesNothing) {
  write_file(dir_ / "bad.jsonl", "{\"text\": \"good\"}\nnot json\n");
  options_.inputs.push_back(dir_ / "bad.jsonl");
  EXPECT_NE(message_of<DataError>([&] { build(); }).find("bad.jsonl:2"), std::string::npos);
  expect_nothing_left(dir_ / "out");
  options_.inputs.pop_back();
  build();
  options_.inputs.push_back(dir_ / "bad.jsonl");
  options_.existing = ExistingShards::Replace;
  const std::string before = read_file(dir_ / "out/train/shard-000000.h5");
  EXPECT_THROW(build(), DataError);
  EXPECT_TRUE(read_file(dir_ / "out/train/shard-000000.h5") == before);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir_ / "out"), {}), 2) << "train, validation";
}

TEST_F(BuildTest, NamesTheLineThatIsTooLongToEncode) {
  const Tokenizer gpt2 = Tokenizer::load(testing::source_dir() + "/tests/data/tokenizers/gpt2.json");
  write_file(dir_ / "long.jsonl", "{\"text\": \"short\"}\n{\"text\": \"" + std::string(5 << 20, 'a') + "\"}\n");
  options_.inputs = {dir_ / "long.jsonl"};
  options_.validation_fraction = 0;
  const std::string message = message_of<DataError>([&] { build_shards(options_, gpt2); });
  EXPECT_TRUE(message.starts_with(dir_ / "long.jsonl:2: a piece of text of 5242880 bytes")) << message;
  expect_nothing_left(dir_ / "out");
}

TEST_F(BuildTest, SaysWhichFractionFillsAnEmptySplit) {
  write_file(dir_ / "three.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b\"}\n{\"text\": \"c\"}\n");
  options_.inputs = {dir_ / "three.jsonl"};
  const auto number_after = [](const std::string& message, const std::string& words) {
    const size_t at = message.find(words);
    EXPECT_NE(at, std::string::npos) << message;
    return at == std::string::npos ? 0.5 : std::stod(message.substr(at + words.size()));
  };
  options_.validation_fraction = 1e-9;
  const double above = number_after(message_of<DataError>([&] { build(); }), "a fraction above ");
  options_.validation_fraction = above + 1e-6;
  EXPECT_EQ(build().validation.documents, 1);

  options_.existing = ExistingShards::Replace;
  options_.validation_fraction = 1 - 1e-9;
  const double most = number_after(message_of<DataError>([&] { build(); }), "a fraction of at most ");
  options_.validation_fraction = most;
  EXPECT_EQ(build().train.documents, 1);

  write_file(dir_ / "one.txt", "a single document");
  options_.inputs = {dir_ / "one.txt"};
  EXPECT_NE(message_of<DataError>([&] { build(); }).find("use a fraction of 0"), std::string::npos);
  options_.validation_fraction = 0;
  EXPECT_EQ(build().train.documents, 1);
}

TEST_F(BuildTest, RefusesBadOptions) {
  for (const double fraction : {-0.1, 1.0, std::nan("")}) {
    options_.validation_fraction = fraction;
    EXPECT_THROW(build(), UsageError) << fraction;
  }
  options_.validation_fraction = 0.1;
  options_.threads = 0;
  EXPECT_THROW(build(), UsageError);
  options_.threads = 1;
  options_.shard_tokens = 0;
  EXPECT_THROW(build(), UsageError);
}

TEST_F(BuildTest, ReportsProgress) {
  write_file(dir_ / "long/a.txt", std::string(3 << 20, 'a'));
  write_file(dir_ / "long/b.txt", std::string(3 << 20, 'b'));
  options_.inputs = {dir_ / "long"};
  options_.validation_fraction = 0;
  std::vector<int64_t> bytes;
  build_shards(options_, tokenizer_, [&](const BuildResult& so_far) { bytes.push_back(so_far.corpus.bytes); });
  EXPECT_EQ(bytes, (std::vector<int64_t>{3 << 20, 6 << 20}));
}

}  // namespace
}  // namespace tessera
