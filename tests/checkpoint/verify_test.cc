#include "checkpoint/verify.h"

#include <algorithm>

#include "checkpoint/format/manifest.h"
#include "checkpoint/format/shard_index.h"
#include "checkpoint/manifest.pb.h"
#include "tests/checkpoint/rig.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

std::string joined(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  return text;
}

TEST(Verify, CountsWhatItReadInAGoodOne) {
  const std::string directory = fresh_directory();
  save_filled(directory, 1, 1, {.parts = 2});
  PosixStorage storage;
  const Verification result = verify(storage, directory + "/step-00000001");
  EXPECT_TRUE(result.ok()) << joined(result.problems);
  EXPECT_EQ(result.files, 6);
  EXPECT_EQ(result.blocks, 8);  // four tensors on two ranks
  int64_t bytes = 0;
  for (const auto& entry : fs::directory_iterator(directory + "/step-00000001")) {
    bytes += static_cast<int64_t>(entry.file_size());
  }
  EXPECT_EQ(result.bytes, bytes);
}

TEST(Verify, NamesTensorAndRowsOfADamagedBlock) {
  const std::string directory = fresh_directory();
  const std::vector<TestTensor> tensors = {{"w", {3000, 1024}, DType::F32}, {"v", {5}, DType::F32}};
  save_filled(directory, 1, 1, {.parts = 1}, tensors);
  const std::string path = directory + "/step-00000001/shard-00000.h5";
  const auto boxes = decode_index(slurp(directory + "/step-00000001/shard-00000.index"), "i", int64_t{1} << 40);
  std::string bytes = slurp(path);
  bytes[boxes[0].offset + 2 * kBlockBytes] ^= 1;  // row 2048, in the third block of 1024 rows
  bytes[boxes[1].offset] ^= 1;
  spill(path, bytes);
  PosixStorage storage;
  const Verification result = verify(storage, directory + "/step-00000001");
  ASSERT_EQ(result.problems.size(), 2u) << joined(result.problems);
  EXPECT_NE(joined(result.problems).find("rows [2048, 3000) of w"), std::string::npos) << joined(result.problems);
  EXPECT_NE(joined(result.problems).find("rows [0, 5) of v"), std::string::npos) << joined(result.problems);
}

TEST(Verify, FindsEveryProblemAtOnce) {
  const std::string directory = fresh_directory();
  save_filled(directory, 1, 1, {.parts = 3});
  const std::string checkpoint = directory + "/step-00000001";
  fs::remove(checkpoint + "/shard-00000.h5");
  fs::resize_file(checkpoint + "/shard-00001.h5", 100);
  fs::resize_file(checkpoint + "/shard-00002.index", 10);
  spill(checkpoint + "/index.h5", std::string(fs::file_size(checkpoint + "/index.h5"), 'x'));
  PosixStorage storage;
  const Verification result = verify(storage, checkpoint);
  EXPECT_EQ(result.problems.size(), 4u) << joined(result.problems);
  for (const char* file : {"shard-00000.h5 is missing", "shard-00001.h5 has 100 bytes",
                           "shard-00002.index does not match", "index.h5 does not match"}) {
    EXPECT_NE(joined(result.problems).find(file), std::string::npos) << joined(result.problems);
  }
  EXPECT_FALSE(verify(storage, directory + "/none").ok());
}

// A manifest and an index that vouch for each other, and yet do not make up the tensor.
TEST(Verify, AnIndexThatLeavesRowsOutIsNoticed) {
  const std::string directory = fresh_directory();
  save_filled(directory, 1, 1, {.parts = 2});
  const std::string checkpoint = directory + "/step-00000001";
  Manifest manifest;
  parse_manifest(slurp(checkpoint + "/manifest.textproto"), "m", manifest);
  auto boxes = decode_index(slurp(checkpoint + "/shard-00001.index"), "i", int64_t{1} << 40);
  boxes.erase(boxes.begin());
  const std::string index = encode_index(boxes);
  spill(checkpoint + "/shard-00001.index", index);
  manifest.mutable_shard(1)->mutable_index()->set_bytes(static_cast<int64_t>(index.size()));
  manifest.mutable_shard(1)->mutable_index()->set_xxh3_128(hash128(index).hex());
  spill(checkpoint + "/manifest.textproto", write_manifest(manifest));
  PosixStorage storage;
  const Verification result = verify(storage, checkpoint);
  ASSERT_EQ(result.problems.size(), 1u);
  EXPECT_NE(result.problems[0].find("no file holds its rows [7, 13)"), std::string::npos) << result.problems[0];
}

// One bit of each byte of every file flipped, one at a time: verify() notices each, and loading refuses or gives the
// right state. Of runs of zero bytes outside the tensors (HDF5's padding) every 13th byte is taken.
TEST(Verify, NoFlippedBitGetsThrough) {
  const std::string directory = fresh_directory();
  save_filled(directory, 1, 1, {.parts = 2});
  const std::string checkpoint = directory + "/step-00000001";
  std::vector<std::string> names;
  for (const auto& entry : PosixStorage().list(checkpoint)) names.push_back(entry.name);
  int64_t flips = 0, harmless = 0, refused = 0;
  run_ranks(1, [&](Comm& world) {
    for (const std::string& name : names) {
      const std::string bytes = slurp(join(checkpoint, name));
      std::vector<Interval> tensors;
      if (name.starts_with("shard") && name.ends_with(".h5")) {
        const std::string index = join(checkpoint, name.substr(0, name.size() - 3) + ".index");
        for (const Box& box : decode_index(slurp(index), "i", int64_t{1} << 40)) {
          tensors.push_back({box.offset, box.offset + box.bytes});
        }
      }
      for (int64_t at = 0; at < static_cast<int64_t>(bytes.size()); ++at) {
        const bool in_tensor = std::any_of(tensors.begin(), tensors.end(), [&](auto t) { return t.contains(at); });
        if (bytes[at] == 0 && !in_tensor && at % 13 != 0) continue;
        ++flips;
        FaultyStorage storage;
        storage.alter = [&](const std::string& path, int64_t offset, std::span<std::byte> out) {
          const int64_t inside = at - offset;
          if (inside < 0 || inside >= static_cast<int64_t>(out.size()) || !path.ends_with("/" + name)) return;
          out[inside] ^= static_cast<std::byte>(1 << (at % 8));
        };
        ASSERT_FALSE(verify(storage, checkpoint).ok()) << name << " byte " << at;
        RankState rank(small_tensors(), {}, 0);
        try {
          load(world, storage, checkpoint, rank.state);
          ++harmless;
          ASSERT_FALSE(in_tensor) << name << " byte " << at;
          ASSERT_EQ(rank.wrong(1), 0) << name << " byte " << at;
          ASSERT_EQ(rank.state.cursors.numbers.at("samples_seen"), 100);
        } catch (const CheckpointError&) {
          ++refused;
        }
      }
    }
  });
  EXPECT_GT(flips, 5000);
  EXPECT_GT(refused, 2000);
  EXPECT_EQ(harmless + refused, flips);
}

}  // namespace
}  // namespace tessera
