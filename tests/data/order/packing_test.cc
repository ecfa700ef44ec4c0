#include "data/order/packing.h"

#include <gtest/gtest.h>

#include "tensor/check.h"
#include "tests/data/shards/shards.h"
#include "tests/data/spoil.h"

namespace tessera {
namespace {

using namespace testing_data;
using Mode = tessera::Documents;

// Where each token of a stream stands, worked out one token at a time.
struct Place {
  int64_t document = 0, begin = 0, end = 0;
};

std::vector<Place> places(const testing_data::Documents& documents) {
  std::vector<Place> out;
  for (size_t d = 0; d < documents.size(); ++d) {
    const auto begin = std::ssize(out), end = begin + std::ssize(documents[d]) + 1;
    for (auto t = begin; t < end; ++t) out.push_back({static_cast<int64_t>(d), begin, end});
  }
  return out;
}

// The naive reading of packing.h, slot by slot, for the samples of a microbatch.
struct Expected {
  std::vector<int32_t> tokens, targets, position, document;

  Expected(const testing_data::Documents& documents, const std::vector<int64_t>& samples, int64_t length, Mode mode) {
    const auto stream = concatenate(documents);
    const auto where = places(documents);
    int32_t id = -1;
    for (const int64_t sample : samples) {
      for (int64_t i = 0; i < length; ++i) {
        const int64_t t = sample * length + i;
        if (sample < 0 || t >= std::ssize(stream)) {
          tokens.push_back(kFormat.end_of_text);
          targets.push_back(-1);
          position.push_back(0);
          document.push_back(-1);
          continue;
        }
        const bool ends = t + 1 == (mode == Mode::Apart ? where[t].end : std::ssize(stream));
        const bool begins = i == 0 || (mode == Mode::Apart && where[t].begin == t);
        id += begins;
        tokens.push_back(stream[t]);
        targets.push_back(ends ? -1 : stream[t + 1]);
        position.push_back(begins ? 0 : position.back() + 1);
        document.push_back(id);
      }
    }
  }
};

template <class T>
std::vector<int32_t> vector_of(const T& span) {
  return {span.begin(), span.end()};
}

void expect_batch(const PackedBatch& packed, const Expected& expected) {
  const Batch& batch = packed.batch();
  ASSERT_EQ(vector_of(batch.tokens), expected.tokens);
  ASSERT_EQ(vector_of(batch.targets), expected.targets);
  ASSERT_EQ(vector_of(batch.position), expected.position);
  ASSERT_EQ(vector_of(batch.document), expected.document);
  ASSERT_EQ(packed.targets(),
            std::ssize(expected.targets) - std::count(expected.targets.begin(), expected.targets.end(), -1));
  // Segments: ascending, one document each, covering exactly the slots that are no padding.
  std::vector<int32_t> covered(expected.document.size(), -1);
  int32_t end = 0, document = -1;
  for (const Segment& segment : batch.segments) {
    ASSERT_GE(segment.begin, end);
    ASSERT_GT(segment.end, segment.begin);
    ASSERT_EQ(segment.document, ++document);
    ASSERT_EQ(segment.position, 0);
    end = segment.end;
    std::fill(covered.begin() + segment.begin, covered.begin() + segment.end, segment.document);
  }
  ASSERT_EQ(covered, expected.document);
}

TEST(Packing, AgreesWithTheNaiveReadingOnRandomDocuments) {
  std::mt19937 random(1);
  for (int trial = 0; trial < 150; ++trial) {
    const TempDirectory dir;
    testing_data::Documents all;
    for (int s = 0; s < 1 + trial % 3; ++s) {
      const auto documents =
          random_documents(random, 1 + static_cast<int>(random() % 30), 1 + static_cast<int>(random() % 40));
      write_shard(dir / "data/shard-" + std::to_string(s) + ".h5", documents);
      all.insert(all.end(), documents.begin(), documents.end());
    }
    const TokenDataset dataset(dir / "data");
    for (int batch = 0; batch < 10; ++batch) {
      const auto length = 1 + static_cast<int64_t>(random() % 50);
      const auto room = 1 + static_cast<int64_t>(random() % 5);
      PackedBatch packed(room, length);
      for (int again = 0; again < 2; ++again) {  // a second filling must not see the first
        const Mode mode = random() % 2 ? Mode::Apart : Mode::Joined;
        std::vector<int64_t> samples;
        packed.clear();
        for (int64_t i = 0; i < room; ++i) {
          const auto choices = sample_count(dataset.tokens(), length, LastSample::Pad);
          samples.push_back(static_cast<int64_t>(random() % (choices + 1)) - 1);
          if (samples.back() < 0)
            packed.add_padding(dataset.end_of_text());
          else
            packed.add(dataset, samples.back(), mode);
        }
        expect_batch(packed, Expected(all, samples, length, mode));
        if (HasFatalFailure()) return;
      }
    }
  }
}

// All samples of an epoch together hold each token of the stream once, and each pair (token, next token) once, but for
// what the last partial sample drops.
TEST(Packing, AnEpochHoldsEveryTokenOnce) {
  const TempDirectory dir;
  std::mt19937 random(2);
  const auto documents = random_documents(random, 100, 30);
  write_shard(dir / "a.h5", documents);
  const TokenDataset dataset(dir / "a.h5");
  const auto stream = concatenate(documents);
  for (const int64_t length : {int64_t{1}, int64_t{7}, int64_t{64}, dataset.tokens()}) {
    std::vector<int32_t> tokens;
    int64_t targets = 0;
    const int64_t count = sample_count(dataset.tokens(), length, LastSample::Drop);
    EXPECT_EQ(count, dataset.tokens() / length);
    PackedBatch packed(1, length);
    for (int64_t s = 0; s < count; ++s) {
      packed.clear();
      packed.add(dataset, s, Mode::Apart);
      tokens.insert(tokens.end(), packed.batch().tokens.begin(), packed.batch().tokens.end());
      targets += packed.targets();
    }
    ASSERT_EQ(std::ssize(tokens), count * length);
    EXPECT_TRUE(std::equal(tokens.begin(), tokens.end(), stream.begin()));
    const auto ends = std::count(tokens.begin(), tokens.end(), kFormat.end_of_text);
    EXPECT_EQ(targets, std::ssize(tokens) - ends) << "only end-of-text has no target";
  }
}

// Whatever one offset is changed to, reading an epoch ends in an error that names the shard and a document.
TEST(Packing, DamagedDocumentOffsetsAreNamed) {
  const TempDirectory dir;
  const std::string path = dir / "data/b.h5";
  const testing_data::Documents documents = {{1, 2, 3}, {4}, {5, 6}, {}, {7, 8, 9, 10, 11}};
  const std::vector<uint64_t> offsets = {0, 4, 6, 9, 10, 16};
  write_shard(dir / "data/a.h5", {{1, 2}});
  for (size_t damaged = 1; damaged + 1 < offsets.size(); ++damaged) {
    for (const uint64_t value : {0ul, 1ul, 2ul, 3ul, 4ul, 5ul, 6ul, 7ul, 8ul, 9ul, 10ul, 11ul, 16ul, 17ul, 1ul << 63}) {
      if (value == offsets[damaged]) continue;
      write_shard(path, documents);
      set_document_offset(path, static_cast<int64_t>(damaged), value);
      const TokenDataset dataset(dir / "data");
      for (const int64_t length : {1, 3, 5, 19}) {
        PackedBatch packed(1, length);
        const std::string message = message_of<DataError>([&] {
          for (int64_t s = 0; s < sample_count(dataset.tokens(), length, LastSample::Pad); ++s) {
            packed.clear();
            packed.add(dataset, s, Mode::Apart);
          }
        });
        EXPECT_NE(message.find("token shard " + path), std::string::npos) << message;
        EXPECT_NE(message.find("document"), std::string::npos) << message;
      }
    }
  }
}

TEST(Packing, CountsSamples) {
  EXPECT_EQ(sample_count(10, 5, LastSample::Drop), 2);
  EXPECT_EQ(sample_count(10, 5, LastSample::Pad), 2);
  EXPECT_EQ(sample_count(11, 5, LastSample::Drop), 2);
  EXPECT_EQ(sample_count(11, 5, LastSample::Pad), 3);
  EXPECT_EQ(sample_count(4, 5, LastSample::Drop), 0);
  EXPECT_EQ(sample_count(4, 5, LastSample::Pad), 1);
}

TEST(Packing, RefusesMisuse) {
  const TempDirectory dir;
  write_shard(dir / "a.h5", {{1, 2, 3}});
  const TokenDataset dataset(dir / "a.h5");
  PackedBatch packed(2, 2);
  packed.add(dataset, 0, Mode::Apart);
  EXPECT_THROW(packed.batch(), InternalError) << "a sample is missing";
  EXPECT_THROW(packed.add(dataset, 2, Mode::Apart), InternalError) << "behind the end";
  packed.add(dataset, 1, Mode::Apart);
  EXPECT_THROW(packed.add(dataset, 1, Mode::Apart), InternalError) << "no room";
  EXPECT_THROW(PackedBatch(1 << 20, 1 << 20), InternalError);
  EXPECT_EQ(PackedBatch::bytes(2, 3), 2 * 3 * (4 * 4 + 16));
}

}  // namespace
}  // namespace tessera
