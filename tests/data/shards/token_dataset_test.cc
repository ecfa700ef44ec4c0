#include "data/shards/token_dataset.h"

#include <gtest/gtest.h>

#include "data/data.pb.h"
#include "tensor/check.h"
#include "tests/data/shards/shards.h"

namespace tessera {
namespace {

using namespace testing_data;

TEST(TokenDataset, IsOneStreamAcrossShards) {
  std::mt19937 random(1);
  for (int trial = 0; trial < 30; ++trial) {
    const TempDirectory dir;
    Documents all;
    const int shards = 1 + static_cast<int>(random() % 5);
    for (int s = 0; s < shards; ++s) {
      const Documents documents = random_documents(random, 1 + static_cast<int>(random() % 20), 12);
      write_shard(dir / "shard-" + std::to_string(s) + ".h5", documents);
      all.insert(all.end(), documents.begin(), documents.end());
    }
    write_file(dir / "notes.txt", "not a shard");
    write_file(dir / "shard-9.h5.tmp", "nor is this");
    write_file(dir / ".hidden.h5", "nor this");
    const TokenDataset dataset(dir.path());
    const std::vector<int32_t> stream = concatenate(all);
    ASSERT_EQ(dataset.tokens(), std::ssize(stream));
    EXPECT_EQ(dataset.documents(), std::ssize(all));
    EXPECT_EQ(std::ssize(dataset.shards()), shards);
    std::vector<int64_t> ends;
    for (const auto& document : all) ends.push_back((ends.empty() ? 0 : ends.back()) + std::ssize(document) + 1);
    for (int i = 0; i < 100; ++i) {
      const auto begin = static_cast<int64_t>(random() % stream.size());
      const auto count = static_cast<int64_t>(random() % (stream.size() - begin + 1));
      std::vector<int32_t> out(count);
      dataset.read(begin, out);
      dataset.prefetch(begin, count + 5);
      ASSERT_TRUE(std::equal(out.begin(), out.end(), stream.begin() + begin));
      auto cursor = dataset.documents_from(begin);
      for (auto end = std::upper_bound(ends.begin(), ends.end(), begin); end != ends.end(); ++end)
        ASSERT_EQ(cursor.next_end(begin + count), *end);
      EXPECT_THROW(cursor.next_end(begin), InternalError);
    }
    std::vector<int32_t> too_many(stream.size());
    EXPECT_THROW(dataset.read(1, too_many), InternalError);
  }
}

TEST(TokenDataset, IdentityIsOfTheDataNotOfThePlace) {
  const TempDirectory dir;
  std::mt19937 random(2);
  const Documents documents = random_documents(random, 10, 12), others = random_documents(random, 10, 12);
  write_shard(dir / "a/one.h5", documents);
  write_shard(dir / "b.h5", documents);
  write_shard(dir / "c.h5", others);
  const std::string identity = TokenDataset(dir / "a").identity();
  EXPECT_EQ(identity.size(), 32u);
  EXPECT_EQ(TokenDataset(dir / "b.h5").identity(), identity);
  EXPECT_NE(TokenDataset(dir / "c.h5").identity(), identity);
  write_shard(dir / "a/two.h5", others);
  EXPECT_NE(TokenDataset(dir / "a").identity(), identity);
}

TEST(TokenDataset, RefusesWhatIsNotOneDataSet) {
  const TempDirectory dir;
  EXPECT_EQ(message_of<DataError>([&] { TokenDataset(dir / "absent"); }),
            "data source " + dir / "absent: no such file or directory");
  EXPECT_NE(message_of<DataError>([&] { TokenDataset{dir.path()}; }).find("no token shard"), std::string::npos);

  write_shard(dir / "1.h5", {{1}});
  write_shard(dir / "2.h5", {{1}}, {"another", 1000, 999});
  const std::string message = message_of<DataError>([&] { TokenDataset{dir.path()}; });
  for (const std::string& word : {dir / "1.h5", dir / "2.h5", kFormat.tokenizer_fingerprint, std::string("another")})
    EXPECT_NE(message.find(word), std::string::npos) << message;
  write_shard(dir / "2.h5", {{1}}, {kFormat.tokenizer_fingerprint, 2000, 999});
  EXPECT_NE(message_of<DataError>([&] { TokenDataset{dir.path()}; }).find("disagree"), std::string::npos);
}

TEST(OpenSources, NamesChecksAndVocabulary) {
  const TempDirectory dir;
  write_shard(dir / "web/train/1.h5", {{1}});
  write_shard(dir / "books.h5", {{1}});
  DataConfig config;
  config.add_train()->set_path(dir / "web/train/");
  DataSource* books = config.add_train();
  books->set_path(dir / "books.h5");
  books->set_name("my books");
  books->set_weight(2.5);
  const auto sources = open_sources(config.train());
  ASSERT_EQ(sources.size(), 2u);
  EXPECT_EQ(sources[0].name, "train") << "the last part of the path";
  EXPECT_EQ(sources[0].weight, 1);
  EXPECT_EQ(sources[1].name, "my books");
  EXPECT_EQ(sources[1].weight, 2.5);
  EXPECT_EQ(vocab_size(sources), 1000);

  check_tokenizer(sources, kFormat.tokenizer_fingerprint);
  const std::string message = message_of<DataError>([&] { check_tokenizer(sources, "fedc"); });
  for (const std::string& word : {dir / "web/train/1.h5", kFormat.tokenizer_fingerprint, std::string("fedc")})
    EXPECT_NE(message.find(word), std::string::npos) << message;

  write_shard(dir / "other.h5", {{1}}, {"another", 1000, 999});
  config.add_train()->set_path(dir / "other.h5");
  EXPECT_NE(message_of<DataError>([&] { open_sources(config.train()); }).find("different tokenizers"),
            std::string::npos);
  config.mutable_train(2)->set_path(dir / "books.h5");
  config.mutable_train(2)->set_name("train");
  EXPECT_NE(message_of<UsageError>([&] { open_sources(config.train()); }).find("two data sources are named \"train\""),
            std::string::npos);
  config.mutable_train(2)->clear_path();
  EXPECT_THROW(open_sources(config.train()), UsageError);
}

}  // namespace
}  // namespace tessera
