#include "checkpoint/format/shard_index.h"

#include "tensor/context/random.h"
#include "tests/checkpoint/rig.h"

namespace tessera {
namespace {

std::vector<Box> example() {
  return {{"a", {0, 3}, DType::F32, 4096, 36, {{1, 2}}},
          {"b/c", {5, 9}, DType::F64, 8192, 2 * kBlockBytes + 1, {{3, 4}, {5, 6}, {~uint64_t{0}, 8}}},
          {"empty rows", {0, 1}, DType::U16, 0, 0, {}}};
}

constexpr int64_t kShardBytes = 8192 + 2 * kBlockBytes + 1;

TEST(ShardIndex, ComesBackAsItWas) {
  EXPECT_EQ(decode_index(encode_index(example()), "i", kShardBytes), example());
  EXPECT_TRUE(decode_index(encode_index({}), "i", 0).empty());
}

// The format of the document, byte for byte.
TEST(ShardIndex, HasTheDocumentedBytes) {
  const std::string bytes = encode_index({example()[0]});
  std::string expected = "TESSINDX";
  const auto number = [&](uint64_t value) {
    for (int i = 0; i < 8; ++i) expected.push_back(static_cast<char>(value >> (8 * i)));
  };
  for (const uint64_t value : {1, 4 << 20, 1, 1}) number(value);
  expected += "a";
  expected += std::string("F32\0\0\0\0\0", 8);
  for (const uint64_t value : {0, 3, 4096, 36, 1, 2}) number(value);
  EXPECT_EQ(bytes, expected);
}

TEST(ShardIndex, RefusesWhatCannotBe) {
  const auto expect = [](const std::string& part, const std::string& bytes, int64_t shard_bytes = kShardBytes) {
    const std::string message = message_of<CheckpointError>([&] { decode_index(bytes, "i", shard_bytes); });
    EXPECT_NE(message.find(part), std::string::npos) << message;
  };
  const std::string bytes = encode_index(example());
  for (size_t cut = 0; cut < bytes.size(); ++cut) expect("i is not an index: ", bytes.substr(0, cut));
  expect("follow its last box", bytes + "x");
  expect("ends at byte", bytes, kShardBytes - 1);
  expect("TESSINDX", "tESSINDX" + bytes.substr(8));
  std::string changed = bytes;
  changed[8] = 9;
  expect("format 9", changed);
  auto boxes = example();
  boxes[0].rows = {3, 3};
  expect("has the rows [3, 3)", encode_index(boxes));
  boxes = example();
  boxes[0].tensor.clear();
  expect("names no tensor", encode_index(boxes));
  boxes = example();
  boxes[0].offset = -1;
  expect("offset", encode_index(boxes));
}

void survive_nonsense(uint64_t rounds) {
  const std::string whole = encode_index(example());
  const RandomStream random(1, "nonsense");
  int refused = 0;
  for (uint64_t round = 0; round < rounds; ++round) {
    std::string bytes = whole;
    for (uint64_t i = 0; i <= random.below(round * 32, 4); ++i) {
      bytes[random.below(round * 32 + 2 * i + 1, bytes.size())] =
          static_cast<char>(random.bits(round * 32 + 2 * i + 2));
    }
    try {
      decode_index(bytes, "i", kShardBytes);
    } catch (const CheckpointError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, static_cast<int>(rounds / 4));
}

TEST(ShardIndex, SurvivesNonsense) { survive_nonsense(20000); }
TEST(ShardIndex, DISABLED_SurvivesMuchNonsense) { survive_nonsense(100000); }

TEST(ShardIndex, GapsAndOverlapsAreNamed) {
  const auto problem = [](std::vector<Interval> parts) { return gap_or_overlap({0, 10}, parts).value_or("none"); };
  EXPECT_EQ(problem({{5, 10}, {0, 5}}), "none");
  EXPECT_EQ(problem({}), "no file holds its rows [0, 10)");
  EXPECT_EQ(problem({{0, 4}, {5, 10}}), "no file holds its rows [4, 5)");
  EXPECT_EQ(problem({{0, 4}, {4, 9}}), "no file holds its rows [9, 10)");
  EXPECT_EQ(problem({{0, 6}, {4, 10}}), "two files hold its rows [4, 6)");
  EXPECT_EQ(problem({{0, 10}, {4, 6}}), "two files hold its rows [4, 6)");
  EXPECT_EQ(problem({{0, 10}, {0, 10}}), "two files hold its rows [0, 10)");
  EXPECT_NE(problem({{0, 12}}), "none");
}

}  // namespace
}  // namespace tessera
