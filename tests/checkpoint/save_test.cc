#include "checkpoint/save.h"

#include <chrono>
#include <thread>

#include "checkpoint/format/manifest.h"
#include "checkpoint/manifest.pb.h"
#include "checkpoint/scan.h"
#include "tests/checkpoint/rig.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> names_in(const std::string& directory) {
  std::vector<std::string> names;
  for (const auto& entry : PosixStorage().list(directory)) names.push_back(entry.name);
  return names;
}

TEST(Save, LeavesACheckpointAndNothingElse) {
  const std::string directory = fresh_directory() + "/deep/checkpoints";
  save_filled(directory, 12, 1, {.parts = 2, .replicas = 1});
  EXPECT_EQ(names_in(directory), (std::vector<std::string>{"LATEST", "step-00000012"}));
  EXPECT_EQ(names_in(directory + "/step-00000012"),
            (std::vector<std::string>{"index.h5", "manifest.textproto", "shard-00000.h5", "shard-00000.index",
                                      "shard-00001.h5", "shard-00001.index"}));
  EXPECT_EQ(slurp(directory + "/LATEST"), "step-00000012\n");
}

TEST(Save, RecordsWhatItWasGiven) {
  const std::string directory = fresh_directory();
  save_filled(directory, 12, 1, {.parts = 2, .replicas = 2});
  PosixStorage storage;
  CheckpointReader reader(storage, directory + "/step-00000012");
  const SaveInfo info = save_info(directory, 12);
  EXPECT_EQ(reader.info().step, 12);
  EXPECT_EQ(reader.info().samples, info.samples);
  EXPECT_EQ(reader.info().tokens, info.tokens);
  EXPECT_EQ(reader.info().layout, info.layout);
  EXPECT_EQ(reader.info().config, info.config);
  EXPECT_EQ(reader.info().versions.at("tessera"), "0.1.0");
  EXPECT_TRUE(reader.info().versions.contains("hdf5"));
  RankState whole(small_tensors(), {}, 0);
  whole.fill(1);
  EXPECT_EQ(reader.info().cursors, whole.state.cursors);
  for (const auto& tensor : small_tensors()) {
    const StoredTensor* stored = reader.find(tensor.name);
    ASSERT_NE(stored, nullptr) << tensor.name;
    EXPECT_EQ(stored->shape, tensor.shape);
    EXPECT_EQ(stored->dtype, tensor.dtype);
  }
}

TEST(Save, EqualStateIsEqualBytes) {
  const std::string directory = fresh_directory();
  const Holding holding{.parts = 2, .replicas = 2};
  save_filled(directory + "/a", 3, 7, holding);
  // Times are stored in seconds: were any stored, the second save's would differ.
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));
  save_filled(directory + "/b", 3, 7, holding);
  for (const std::string& name : names_in(directory + "/a/step-00000003")) {
    EXPECT_TRUE(slurp(directory + "/a/step-00000003/" + name) == slurp(directory + "/b/step-00000003/" + name)) << name;
  }
  save_filled(directory + "/c", 3, 8, holding);
  EXPECT_NE(slurp(directory + "/a/step-00000003/shard-00000.h5"), slurp(directory + "/c/step-00000003/shard-00000.h5"));
}

TEST(Save, ReplicasShareTheWriting) {
  const std::string directory = fresh_directory();
  const std::vector<TestTensor> tensors = {{"w", {64, 1024}, DType::F32}};
  save_filled(directory, 1, 1, {.parts = 1, .replicas = 4}, tensors);
  PosixStorage storage;
  CheckpointReader reader(storage, directory + "/step-00000001");
  ASSERT_EQ(reader.tensors()[0].parts.size(), 4u);
  for (const auto& part : reader.tensors()[0].parts) EXPECT_EQ(part.box.rows.size(), 16);
}

TEST(Save, ReplacesTheSameStepAndItsOwnLeftovers) {
  const std::string directory = fresh_directory();
  save_filled(directory, 5, 1, {});
  fs::create_directories(directory + "/step-00000005.tmp-other/half");
  fs::create_directories(directory + "/step-00000004.tmp-test");
  spill(directory + "/step-00000004.tmp-test/shard-00000.h5", "half");
  fs::create_directories(directory + "/step-00000009.tmp-other");
  save_filled(directory, 5, 2, {.parts = 2});
  EXPECT_EQ(names_in(directory), (std::vector<std::string>{"LATEST", "step-00000005", "step-00000009.tmp-other"}));
  run_ranks(1, [&](Comm& world) {
    PosixStorage storage;
    RankState rank(small_tensors(), {}, 0);
    load(world, storage, directory + "/step-00000005", rank.state);
    EXPECT_EQ(rank.wrong(2), 0);
  });
}

// Fails the first `operation` on a path that contains `part`, on one rank.
struct Fault {
  std::string operation;
  std::string part;
  int rank;
};

class SaveFault : public ::testing::TestWithParam<Fault> {};

TEST_P(SaveFault, EveryRankThrowsTheSameAndTheOldOneStays) {
  const Fault fault = GetParam();
  const std::string directory = fresh_directory();
  save_filled(directory, 1, 1, {.parts = 3});
  std::mutex mutex;
  std::vector<std::string> messages;
  run_ranks(3, [&](Comm& world) {
    FaultyStorage storage;
    if (world.rank() == fault.rank) {
      storage.before = [&](const std::string& operation, const std::string& path) {
        if (operation == fault.operation && path.find(fault.part) != std::string::npos) {
          throw IoError("cannot " + operation + " " + path + ": injected");
        }
      };
    }
    RankState rank(small_tensors(), {.parts = 3}, world.rank());
    rank.fill(2);
    const std::string message = message_of<IoError>([&] { save(world, storage, rank.state, save_info(directory, 2)); });
    const std::lock_guard lock(mutex);
    messages.push_back(message);
  });
  ASSERT_EQ(messages.size(), 3u);
  EXPECT_EQ(messages[0], messages[1]);
  EXPECT_EQ(messages[0], messages[2]);
  EXPECT_NE(messages[0].find("step 2 is not saved: rank " + std::to_string(fault.rank) + ": cannot " + fault.operation),
            std::string::npos)
      << messages[0];
  EXPECT_FALSE(fs::exists(directory + "/step-00000002.tmp-test"));
  run_ranks(1, [&](Comm& world) {
    PosixStorage storage;
    RankState rank(small_tensors(), {}, 0);
    EXPECT_EQ(resume(world, storage, directory, rank.state).checkpoint->step, 1);
    EXPECT_EQ(rank.wrong(1), 0);
  });
  // The next one is not bothered by what the failed one did.
  save_filled(directory, 2, 2, {.parts = 3});
}

INSTANTIATE_TEST_SUITE_P(Points, SaveFault,
                         ::testing::Values(Fault{"create_directories", ".tmp-test", 0}, Fault{"free_bytes", "", 0},
                                           Fault{"create", "shard-00001.h5", 1},  // a read-only directory
                                           Fault{"append", "shard-00002.h5", 2},  // a full disk
                                           Fault{"finish", "shard-00000.h5", 0},  // a disk that reports late
                                           Fault{"create", "shard-00002.index", 2}, Fault{"append", "index.h5", 0},
                                           Fault{"append", "manifest", 0}, Fault{"sync_directory", ".tmp-test", 0},
                                           Fault{"publish", "step-00000002", 0}),
                         [](const auto& tested) {
                           std::string name = tested.param.operation + "_" + tested.param.part;
                           for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
                           return name;
                         });

TEST(Save, ADiskTooSmallIsFoundBeforeWriting) {
  struct SmallDisk : PosixStorage {
    int64_t free_bytes(const std::string&) override { return 100; }
  };
  const std::string directory = fresh_directory();
  run_ranks(2, [&](Comm& world) {
    SmallDisk storage;
    RankState rank(small_tensors(), {.parts = 2}, world.rank());
    const std::string message = message_of<IoError>([&] { save(world, storage, rank.state, save_info(directory, 2)); });
    EXPECT_NE(message.find("has 100 bytes free"), std::string::npos) << message;
  });
  EXPECT_TRUE(names_in(directory).empty());
}

TEST(Save, AFailureToCleanUpIsSaidToo) {
  const std::string directory = fresh_directory();
  run_ranks(2, [&](Comm& world) {
    FaultyStorage storage;
    storage.before = [&](const std::string& operation, const std::string& path) {
      if (operation == "publish" || operation == "remove_tree") throw IoError("cannot " + operation + " " + path);
    };
    RankState rank(small_tensors(), {.parts = 2}, world.rank());
    const std::string message = message_of<IoError>([&] { save(world, storage, rank.state, save_info(directory, 2)); });
    EXPECT_NE(message.find("cannot publish"), std::string::npos) << message;
    EXPECT_NE(message.find("what was written of it stays"), std::string::npos) << message;
  });
}

// A process that is killed does nothing more: here, no operation on the storage after number n gets through.
TEST(Save, KilledAnywhereTheOldOrTheNewOneIsThere) {
  const std::string directory = fresh_directory();
  save_filled(directory, 1, 1, {.parts = 2});
  int64_t published = 0;
  int points = 0;
  for (int survive = 0;; ++survive, ++points) {
    bool killed = false;
    try {
      std::atomic<int> operations = 0;
      run_ranks(2, [&](Comm& world) {
        FaultyStorage storage;
        storage.before = [&](const std::string&, const std::string&) {
          if (operations++ >= survive) throw IoError("killed");
        };
        RankState rank(small_tensors(), {.parts = 2}, world.rank());
        rank.fill(2);
        save(world, storage, rank.state, save_info(directory, 2));
      });
    } catch (const IoError&) {
      killed = true;
    }
    run_ranks(2, [&](Comm& world) {
      PosixStorage storage;
      RankState rank(small_tensors(), {.parts = 2}, world.rank());
      const Found found = resume(world, storage, directory, rank.state);
      ASSERT_TRUE(found.checkpoint.has_value());
      EXPECT_TRUE(found.warnings.empty()) << found.warnings[0];
      EXPECT_EQ(rank.wrong(static_cast<uint64_t>(found.checkpoint->step)), 0);
      if (world.rank() == 0) published += found.checkpoint->step == 2;
    });
    fs::remove_all(directory + "/step-00000002");
    if (!killed) break;
  }
  EXPECT_GT(points, 15);
  EXPECT_GT(published, 1) << "some points lie behind the rename";
}

TEST(Save, SlicesThatDoNotMakeUpATensorAreNeverPublished) {
  const std::string directory = fresh_directory();
  const auto attempt = [&](const std::function<void(Comm&, State&)>& change) {
    std::string text;
    run_ranks(2, [&](Comm& world) {
      PosixStorage storage;
      RankState rank(small_tensors(), {.parts = 2}, world.rank());
      change(world, rank.state);
      const std::string message =
          message_of<InternalError>([&] { save(world, storage, rank.state, save_info(directory, 2)); });
      if (world.rank() == 0) text = message;
    });
    EXPECT_TRUE(names_in(directory).empty());
    return text;
  };
  std::string message = attempt([](Comm& world, State& state) {
    if (world.rank() == 1) state.slices.erase(state.slices.begin());
  });
  EXPECT_NE(message.find("master/blocks.0.attention.qkv: no file holds its rows [7, 13)"), std::string::npos)
      << message;
  message = attempt([](Comm& world, State& state) {
    if (world.rank() == 1) state.slices[0].global_shape = Shape{14, 4};
  });
  EXPECT_NE(message.find("ranks disagree on master/blocks.0.attention.qkv"), std::string::npos) << message;
  message = attempt([](Comm& world, State& state) { state.cursors.numbers["samples_seen"] = world.rank(); });
  EXPECT_NE(message.find("rank 1 saves another step, layout or cursor"), std::string::npos) << message;
}

}  // namespace
}  // namespace tessera
