#include "checkpoint/load.h"

#include "checkpoint/retention.h"
#include "checkpoint/scan.h"
#include "checkpoint/verify.h"
#include "tests/checkpoint/rig.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

struct Pair {
  Holding saved;
  Holding loaded;
};

class AnyLayout : public ::testing::TestWithParam<Pair> {};

TEST_P(AnyLayout, LoadsWhatWasSaved) {
  const auto [saved, loaded] = GetParam();
  const std::string directory = fresh_directory();
  save_filled(directory, 3, 9, saved);
  // One rank more than hold anything: it takes part all the same.
  const int ranks = loaded.parts * loaded.replicas + 1;
  run_ranks(ranks, [&, held = loaded](Comm& world) {
    PosixStorage storage;
    RankState rank(small_tensors(), held, world.rank());
    const Found found = resume(world, storage, directory, rank.state);
    ASSERT_TRUE(found.checkpoint.has_value());
    EXPECT_EQ(found.checkpoint->step, 3);
    EXPECT_TRUE(found.warnings.empty());
    EXPECT_EQ(rank.wrong(9), 0) << "rank " << world.rank();
    RankState filled({}, {}, 0);
    filled.fill(9);
    EXPECT_EQ(rank.state.cursors, filled.state.cursors);
  });
}

std::vector<Pair> all_pairs() {
  const std::vector<Holding> holdings = {{1, 1}, {2, 1}, {3, 1}, {5, 1}, {1, 3}, {2, 2}, {7, 2}};
  std::vector<Pair> pairs;
  for (const Holding& saved : holdings) {
    for (const Holding& loaded : holdings) pairs.push_back({saved, loaded});
  }
  return pairs;
}

std::string pair_name(const ::testing::TestParamInfo<Pair>& tested) {
  const auto& [saved, loaded] = tested.param;
  return "From" + std::to_string(saved.parts) + "x" + std::to_string(saved.replicas) + "To" +
         std::to_string(loaded.parts) + "x" + std::to_string(loaded.replicas);
}

INSTANTIATE_TEST_SUITE_P(Pairs, AnyLayout, ::testing::ValuesIn(all_pairs()), pair_name);

// Tensors of several blocks whose boundaries fall inside rows, and the bytes that each rank reads for them.
TEST(Load, ReadsOnlyTheBlocksOfItsRows) {
  const std::string directory = fresh_directory();
  const std::vector<TestTensor> tensors = {{"big", {1001, 3001}, DType::F32}, {"small", {17}, DType::F64}};
  save_filled(directory, 1, 4, {.parts = 1}, tensors);
  run_ranks(3, [&](Comm& world) {
    FaultyStorage storage;
    int64_t tensor_bytes = 0;
    storage.alter = [&](const std::string& path, int64_t, std::span<std::byte> bytes) {
      if (path.ends_with(".h5")) tensor_bytes += static_cast<int64_t>(bytes.size());
    };
    RankState rank(tensors, {.parts = 3}, world.rank());
    load(world, storage, directory + "/step-00000001", rank.state);
    EXPECT_EQ(rank.wrong(4), 0) << "rank " << world.rank();
    // A third of the 12 MB, rounded out to whole blocks on both sides, and the 17 numbers.
    EXPECT_LE(tensor_bytes, rank.state.slices[0].data.bytes() + 2 * kBlockBytes + 17 * 8);
  });
}

std::string load_error(const std::string& path, const std::vector<TestTensor>& tensors,
                       LoadScope scope = LoadScope::All) {
  std::string text;
  run_ranks(2, [&](Comm& world) {
    PosixStorage storage;
    RankState rank(tensors, {.parts = 2}, world.rank());
    rank.fill(77);
    const std::string message = message_of<CheckpointError>([&] { load(world, storage, path, rank.state, scope); });
    EXPECT_EQ(rank.wrong(77), 0) << "nothing is overwritten when the state does not fit";
    if (world.rank() == 0) text = message;
  });
  return text;
}

TEST(Load, AnotherModelIsNamedByItsTensor) {
  const std::string directory = fresh_directory();
  save_filled(directory, 3, 9, {.parts = 2});
  const std::string path = directory + "/step-00000003";

  auto tensors = small_tensors();
  tensors[1].name = "master/blocks.7.norm";
  EXPECT_NE(load_error(path, tensors).find("has no tensor master/blocks.7.norm"), std::string::npos);
  tensors = small_tensors();
  tensors[0].shape = Shape{13, 5};
  EXPECT_NE(load_error(path, tensors)
                .find("master/blocks.0.attention.qkv has the shape [13, 4], and this run needs "
                      "[13, 5]"),
            std::string::npos);
  tensors = small_tensors();
  tensors[2].dtype = DType::F32;
  EXPECT_NE(load_error(path, tensors).find("exp_avg/blocks.0.attention.qkv is F64, and this run needs F32"),
            std::string::npos);
  tensors = small_tensors();
  tensors.pop_back();
  EXPECT_NE(load_error(path, tensors).find("has a tensor counts that this run has no place for"), std::string::npos);
}

TEST(Load, APartOfTheTensorsMayBeWanted) {
  const std::string directory = fresh_directory();
  save_filled(directory, 3, 9, {.parts = 2});
  run_ranks(1, [&](Comm& world) {
    PosixStorage storage;
    RankState rank({small_tensors()[0]}, {}, 0);
    load(world, storage, directory + "/step-00000003", rank.state, LoadScope::Subset);
    EXPECT_EQ(rank.wrong(9), 0);
  });
}

TEST(Resume, NoneAtAllIsAFreshStart) {
  const std::string directory = fresh_directory();
  fs::create_directories(directory + "/step-00000007.tmp-test");
  spill(directory + "/notes.txt", "mine");
  run_ranks(2, [&](Comm& world) {
    PosixStorage storage;
    RankState rank(small_tensors(), {.parts = 2}, world.rank());
    for (const std::string& where : {directory, directory + "/missing"}) {
      const Found found = resume(world, storage, where, rank.state);
      EXPECT_FALSE(found.checkpoint.has_value());
      EXPECT_TRUE(found.warnings.empty());
      EXPECT_FALSE(find_newest_valid(world, storage, where).checkpoint.has_value());
    }
  });
}

struct Damage {
  std::string name;
  std::string warning;  // must be part of what is said
  std::function<void(const std::string& checkpoint)> inflict;
  bool seen_on_opening = true;  // without reading tensors
};

class Damaged : public ::testing::TestWithParam<Damage> {};

// Three checkpoints; the newest is damaged: the one before is loaded, and the warning names what is wrong.
TEST_P(Damaged, TheOneBeforeIsLoaded) {
  const std::string directory = fresh_directory();
  for (const int step : {10, 20, 30}) save_filled(directory, step, static_cast<uint64_t>(step), {.parts = 2});
  GetParam().inflict(directory + "/step-00000030");
  spill(directory + "/LATEST", "step-00000030\n");
  run_ranks(3, [&](Comm& world) {
    PosixStorage storage;
    RankState rank(small_tensors(), {.parts = 3}, world.rank());
    const Found found = resume(world, storage, directory, rank.state);
    ASSERT_TRUE(found.checkpoint.has_value());
    EXPECT_EQ(found.checkpoint->step, 20);
    EXPECT_EQ(rank.wrong(20), 0);
    EXPECT_EQ(rank.state.cursors.numbers.at("samples_seen"), 2000);
    ASSERT_EQ(found.warnings.size(), 1u);
    EXPECT_NE(found.warnings[0].find("step-00000030 is passed over"), std::string::npos) << found.warnings[0];
    EXPECT_NE(found.warnings[0].find(GetParam().warning), std::string::npos) << found.warnings[0];
    EXPECT_EQ(find_newest_valid(world, storage, directory).checkpoint->step, GetParam().seen_on_opening ? 20 : 30);
  });
  GetParam().inflict(directory + "/step-00000020");
  GetParam().inflict(directory + "/step-00000010");
  run_ranks(2, [&](Comm& world) {
    PosixStorage storage;
    RankState rank(small_tensors(), {.parts = 2}, world.rank());
    const std::string message = message_of<CheckpointError>([&] { resume(world, storage, directory, rank.state); });
    EXPECT_NE(message.find("no valid checkpoint in " + directory), std::string::npos) << message;
    EXPECT_NE(message.find("step-00000010"), std::string::npos) << message;
  });
}

// Damage that only reading shows: the manifest and all sizes are right, and the checkpoint was VERIFIED once.
TEST(Resume, ACheckpointThatWasFoundDamagedIsNoneToFallBackOn) {
  const std::string directory = fresh_directory();
  PosixStorage storage;
  for (const int step : {10, 20, 30}) {
    save_filled(directory, step, static_cast<uint64_t>(step), {.parts = 2});
    mark_verified(storage, directory + "/" + step_name(step));
  }
  const std::string shard = directory + "/step-00000030/" + shard_name(0), whole = slurp(shard);
  spill(shard, std::string(whole.size(), 'x'));
  run_ranks(2, [&](Comm& world) {
    PosixStorage own;
    RankState rank(small_tensors(), {.parts = 2}, world.rank());
    EXPECT_EQ(resume(world, own, directory, rank.state).checkpoint->step, 20);
  });
  EXPECT_EQ(scan(storage, directory).back().state, CheckpointEntry::State::Broken);
  save_filled(directory, 40, 40, {.parts = 2});
  mark_verified(storage, directory + "/step-00000040");
  EXPECT_EQ(prune(storage, directory, {.keep_last = 2}), (std::vector<std::string>{"step-00000010"}))
      << "20 is what there is beside 40";
  // Whole again, say from a backup: reading all of it takes the mark away.
  spill(shard, whole);
  mark_verified(storage, directory + "/step-00000030");
  EXPECT_EQ(scan(storage, directory)[1].state, CheckpointEntry::State::Valid);
}

void truncate_by_one(const std::string& path) { fs::resize_file(path, fs::file_size(path) - 1); }
void exchange(const std::string& a, const std::string& b) {
  fs::rename(a, a + ".x");
  fs::rename(b, a);
  fs::rename(a + ".x", b);
}

INSTANTIATE_TEST_SUITE_P(
    Newest, Damaged,
    ::testing::Values(
        Damage{"NoManifest", "is missing", [](const auto& c) { fs::remove(c + "/manifest.textproto"); }},
        Damage{"CutManifest", "hash", [](const auto& c) { truncate_by_one(c + "/manifest.textproto"); }},
        Damage{"EmptyManifest", "cut off", [](const auto& c) { spill(c + "/manifest.textproto", ""); }},
        Damage{"NoShard", "shard-00001.h5 is missing", [](const auto& c) { fs::remove(c + "/shard-00001.h5"); }},
        Damage{"CutShard", "shard-00001.h5 has", [](const auto& c) { truncate_by_one(c + "/shard-00001.h5"); }},
        Damage{"LongShard", "shard-00000.h5 has",
               [](const auto& c) { spill(c + "/shard-00000.h5", slurp(c + "/shard-00000.h5") + "x"); }},
        Damage{"NoIndex", "shard-00000.index is missing", [](const auto& c) { fs::remove(c + "/shard-00000.index"); }},
        Damage{"CutIndex", "shard-00000.index has", [](const auto& c) { truncate_by_one(c + "/shard-00000.index"); }},
        Damage{"SwappedIndexes", "shard-00000.index",
               [](const auto& c) { exchange(c + "/shard-00000.index", c + "/shard-00001.index"); }},
        Damage{"SwappedShards", "shard-0000",
               [](const auto& c) { exchange(c + "/shard-00000.h5", c + "/shard-00001.h5"); }},
        Damage{"DuplicatedShard", "do not match their hash",
               [](const auto& c) {
                 // The same size, so that only the content tells.
                 const auto size = fs::file_size(c + "/shard-00001.h5");
                 fs::copy_file(c + "/shard-00000.h5", c + "/shard-00001.h5", fs::copy_options::overwrite_existing);
                 fs::resize_file(c + "/shard-00001.h5", size);
               },
               false},
        Damage{"ZeroedShard", "do not match their hash",
               [](const auto& c) {
                 spill(c + "/shard-00001.h5", std::string(fs::file_size(c + "/shard-00001.h5"), '\0'));
               },
               false},
        Damage{"AnotherStepsFiles", "says in its manifest that it is step 1",
               [](const auto& c) {
                 save_filled(c + ".other", 1, 1, {});
                 fs::remove_all(c);
                 fs::rename(c + ".other/step-00000001", c);
               }},
        Damage{"ADirectoryForAFile", "it is not a file",
               [](const auto& c) {
                 fs::remove(c + "/manifest.textproto");
                 fs::create_directory(c + "/manifest.textproto");
               }}),
    [](const auto& tested) { return tested.param.name; });

TEST(Resume, ANumberIsNotACheckpoint) {
  const std::string directory = fresh_directory();
  save_filled(directory, 10, 10, {});
  fs::create_directories(directory + "/step-00000999");
  fs::create_directories(directory + "/step-99");  // not a name of ours
  spill(directory + "/step-00000998", "a file");
  run_ranks(1, [&](Comm& world) {
    PosixStorage storage;
    RankState rank(small_tensors(), {}, 0);
    const Found found = resume(world, storage, directory, rank.state);
    EXPECT_EQ(found.checkpoint->step, 10);
    ASSERT_EQ(found.warnings.size(), 1u);
    EXPECT_NE(found.warnings[0].find("step-00000999"), std::string::npos);
  });
}

TEST(Resume, AnotherModelIsNoReasonToFallBack) {
  const std::string directory = fresh_directory();
  save_filled(directory, 10, 10, {});
  save_filled(directory, 20, 20, {}, {{"other", {4, 4}, DType::F32}});
  run_ranks(2, [&](Comm& world) {
    PosixStorage storage;
    RankState rank(small_tensors(), {.parts = 2}, world.rank());
    const std::string message = message_of<CheckpointError>([&] { resume(world, storage, directory, rank.state); });
    EXPECT_NE(message.find("has no tensor"), std::string::npos) << message;
  });
}

TEST(Resume, MayBeRefusedByAnyRank) {
  const std::string directory = fresh_directory();
  save_filled(directory, 10, 10, {});
  run_ranks(2, [&](Comm& world) {
    PosixStorage storage;
    RankState rank(small_tensors(), {.parts = 2}, world.rank());
    const std::string message = message_of<UsageError>([&] {
      resume(world, storage, directory, rank.state, [&](const CheckpointInfo& info) {
        EXPECT_EQ(info.config, save_info("", 10).config);
        if (world.rank() == 1) throw UsageError("model.hidden_size differs");
      });
    });
    EXPECT_EQ(message, "rank 1: model.hidden_size differs");
  });
}

TEST(Resume, AReadErrorOnOneRankIsEveryRanks) {
  const std::string directory = fresh_directory();
  for (const int step : {10, 20}) save_filled(directory, step, static_cast<uint64_t>(step), {.parts = 2});
  run_ranks(3, [&](Comm& world) {
    FaultyStorage storage;
    storage.before = [&](const std::string& operation, const std::string& path) {
      if (world.rank() == 2 && operation == "read" && path.find("20/shard-00001.h5") != std::string::npos) {
        throw IoError("cannot read " + path + ": Input/output error");
      }
    };
    RankState rank(small_tensors(), {.parts = 3}, world.rank());
    const Found found = resume(world, storage, directory, rank.state);
    EXPECT_EQ(found.checkpoint->step, 10);
    EXPECT_EQ(rank.wrong(10), 0);
    ASSERT_EQ(found.warnings.size(), 1u);
    EXPECT_NE(found.warnings[0].find("rank 2: cannot read"), std::string::npos) << found.warnings[0];
  });
}

TEST(Resume, AFolderThatCannotBeListedIsNoFreshStart) {
  const std::string directory = fresh_directory();
  spill(directory + "/checkpoints", "a file, not a folder");
  run_ranks(2, [&](Comm& world) {
    PosixStorage storage;
    RankState rank(small_tensors(), {.parts = 2}, world.rank());
    EXPECT_NE(message_of<IoError>([&] {
                resume(world, storage, directory + "/checkpoints", rank.state);
              }).find("cannot list"),
              std::string::npos);
  });
}

}  // namespace
}  // namespace tessera
