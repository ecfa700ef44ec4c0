#include "checkpoint/reshard.h"

#include "checkpoint/inspect.h"
#include "checkpoint/verify.h"
#include "tests/checkpoint/layouts.h"
#include "tests/checkpoint/rig.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

TEST(Reshard, KeepsEveryBit) {
  const std::string directory = fresh_directory();
  const auto tensors = transformer_tensors(40);
  const Layout layout{.pp = 2, .dp = 3, .zero = true};
  run_ranks(layout.ranks(), [&](Comm& world) {
    PosixStorage storage;
    RankState rank(tensors, held_by(tensors, layout, world.rank()));
    rank.fill(3);
    save(world, storage, rank.state, save_info(directory, 7));
  });
  PosixStorage storage;
  CheckpointReader from(storage, directory + "/step-00000007");
  for (const int shards : {1, 2, 7}) {
    const std::string other = directory + "/copy" + std::to_string(shards);
    const std::string path = reshard(from, storage, other, shards);
    EXPECT_EQ(path, other + "/step-00000007");
    EXPECT_TRUE(fs::exists(path + "/" + shard_name(shards - 1)));
    EXPECT_FALSE(fs::exists(path + "/" + shard_name(shards)));
    EXPECT_TRUE(verify(storage, path).ok());
    CheckpointReader to(storage, path);
    EXPECT_TRUE(diff(from, to).equal());
    EXPECT_EQ(to.info().config, from.info().config);
    EXPECT_EQ(to.info().layout, from.info().layout);
    EXPECT_EQ(to.info().samples, from.info().samples);
    int64_t least = INT64_MAX, most = 0;
    for (int shard = 0; shard < shards; ++shard) {
      const auto size = static_cast<int64_t>(fs::file_size(path + "/" + shard_name(shard)));
      least = std::min(least, size);
      most = std::max(most, size);
    }
    EXPECT_LT(most - least, most / 4 + 65536) << "about equal in size";
  }
}

TEST(Reshard, RefusesWhatIsThereAndNonsense) {
  const std::string directory = fresh_directory();
  save_filled(directory, 7, 1, {});
  PosixStorage storage;
  CheckpointReader from(storage, directory + "/step-00000007");
  EXPECT_NE(message_of<UsageError>([&] { reshard(from, storage, directory, 2); }).find("is there already"),
            std::string::npos);
  EXPECT_THROW(reshard(from, storage, directory + "/b", 0), UsageError);
}

TEST(Reshard, ADamagedBlockLeavesNothingBehind) {
  const std::string directory = fresh_directory();
  save_filled(directory, 7, 1, {});
  PosixStorage storage;
  CheckpointReader from(storage, directory + "/step-00000007");
  const std::string shard = directory + "/step-00000007/shard-00000.h5";
  spill(shard, std::string(fs::file_size(shard), 'x'));
  EXPECT_NE(message_of<CheckpointError>([&] { reshard(from, storage, directory + "/b", 2); }).find("do not match"),
            std::string::npos);
  EXPECT_TRUE(storage.list(directory + "/b").empty());
}

}  // namespace
}  // namespace tessera
