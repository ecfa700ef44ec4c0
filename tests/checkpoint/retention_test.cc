#include "checkpoint/retention.h"

#include "checkpoint/scan.h"
#include "checkpoint/verify.h"
#include "tests/checkpoint/rig.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

using Names = std::vector<std::string>;

Names steps_in(const std::string& directory) {
  Names names;
  for (const auto& entry : PosixStorage().list(directory)) {
    if (entry.directory) names.push_back(entry.name);
  }
  return names;
}

// A checkpoint that was read again and found right.
void save_verified(const std::string& directory, int64_t step, const Holding& holding = {}) {
  save_filled(directory, step, 1, holding);
  PosixStorage storage;
  mark_verified(storage, directory + "/" + step_name(step));
}

TEST(Retention, KeepsTheLastOnes) {
  const std::string directory = fresh_directory();
  for (const int step : {1, 2, 3, 4, 5}) save_verified(directory, step, {.parts = 2});
  PosixStorage storage;
  EXPECT_TRUE(prune(storage, directory, {.keep_last = 5}).empty());
  EXPECT_EQ(prune(storage, directory, {.keep_last = 3}), (Names{"step-00000001", "step-00000002"}));
  EXPECT_EQ(steps_in(directory), (Names{"step-00000003", "step-00000004", "step-00000005"}));
}

TEST(Retention, BrokenOnesDoNotCount) {
  const std::string directory = fresh_directory();
  for (const int step : {1, 2, 3, 4, 5, 6}) save_verified(directory, step);
  for (const char* broken : {"/step-00000002", "/step-00000005", "/step-00000006"}) {
    fs::remove(directory + broken + "/shard-00000.h5");
  }
  PosixStorage storage;
  // Valid are 1, 3 and 4. The broken 5 and 6 have nothing newer that is valid; 2 lies behind two.
  EXPECT_EQ(prune(storage, directory, {.keep_last = 2}), (Names{"step-00000001", "step-00000002"}));
  EXPECT_EQ(steps_in(directory), (Names{"step-00000003", "step-00000004", "step-00000005", "step-00000006"}));
}

TEST(Retention, NothingIsRemovedWhenTooFewAreValid) {
  const std::string directory = fresh_directory();
  for (const int step : {1, 2, 3}) save_filled(directory, step, 1, {});
  for (const char* broken : {"/step-00000002", "/step-00000003"}) {
    fs::remove(directory + broken + "/manifest.textproto");
  }
  PosixStorage storage;
  EXPECT_TRUE(prune(storage, directory, {.keep_last = 2}).empty());
  EXPECT_TRUE(prune(storage, directory + "/missing", {.keep_last = 2}).empty());
  EXPECT_EQ(steps_in(directory).size(), 3u);
}

TEST(Retention, OldLeftoversGoToo) {
  const std::string directory = fresh_directory();
  for (const int step : {2, 4}) save_filled(directory, step, 1, {});
  for (const char* name : {"/step-00000001.tmp-a", "/step-00000003.tmp-b", "/step-00000004.tmp-c", "/mine"}) {
    fs::create_directories(directory + name);
  }
  PosixStorage storage;
  EXPECT_EQ(prune(storage, directory, {.keep_last = 2}), (Names{"step-00000001.tmp-a", "step-00000003.tmp-b"}));
  EXPECT_EQ(steps_in(directory), (Names{"mine", "step-00000002", "step-00000004", "step-00000004.tmp-c"}));
}

TEST(Retention, EveryNthIsKeptForEver) {
  const std::string directory = fresh_directory();
  for (const int step : {10, 15, 20, 25, 30, 35}) save_verified(directory, step);
  fs::remove(directory + "/step-00000020/index.h5");
  fs::remove(directory + "/step-00000020/shard-00000.h5");
  PosixStorage storage;
  EXPECT_EQ(prune(storage, directory, {.keep_last = 2, .keep_every = 10}),
            (Names{"step-00000015", "step-00000020", "step-00000025"}))
      << "a broken one is of no use for ever";
}

TEST(Retention, DeletesOnlyBehindVerifiedOnes) {
  const std::string directory = fresh_directory();
  PosixStorage storage;
  for (const int step : {1, 2, 3, 4, 5}) save_filled(directory, step, 1, {});
  EXPECT_TRUE(prune(storage, directory, {}).empty()) << "none is verified";
  mark_verified(storage, directory + "/step-00000002");
  EXPECT_EQ(prune(storage, directory, {}), (Names{"step-00000001"}));
  mark_verified(storage, directory + "/step-00000004");
  EXPECT_EQ(prune(storage, directory, {}), (Names{"step-00000003"})) << "2 and 4 are the only verified ones";
  mark_verified(storage, directory + "/step-00000005");
  EXPECT_EQ(prune(storage, directory, {}), (Names{"step-00000002"}));
}

// A mark says nothing about a checkpoint that took the place of the one that was read.
TEST(Retention, AStaleMarkDoesNotCount) {
  const std::string directory = fresh_directory();
  for (const int step : {1, 2, 3}) save_verified(directory, step);
  const std::string mark = slurp(directory + "/step-00000003/VERIFIED");
  save_filled(directory, 3, 2, {});
  spill(directory + "/step-00000003/VERIFIED", mark);
  PosixStorage storage;
  EXPECT_FALSE(is_marked_verified(storage, directory + "/step-00000003"));
  EXPECT_TRUE(prune(storage, directory, {}).empty());
}

TEST(Retention, FewerThanTwoIsRefused) {
  PosixStorage storage;
  for (const int keep : {1, 0, -3}) {
    EXPECT_NE(message_of<UsageError>([&] {
                prune(storage, fresh_directory(), {.keep_last = keep});
              }).find("checkpoint.keep_last = "),
              std::string::npos);
  }
}

TEST(Retention, EveryRankLearnsWhatWasRemovedAndWhatWentWrong) {
  const std::string directory = fresh_directory();
  for (const int step : {1, 2, 3}) save_verified(directory, step);
  run_ranks(2, [&](Comm& world) {
    FaultyStorage storage;
    storage.before = [](const std::string& operation, const std::string& path) {
      if (operation == "rename") throw IoError("cannot rename " + path);
    };
    const std::string message = message_of<IoError>([&] { prune(world, storage, directory, {.keep_last = 2}); });
    EXPECT_NE(message.find("cannot rename " + directory), std::string::npos) << message;
    storage.before = nullptr;
    EXPECT_EQ(prune(world, storage, directory, {.keep_last = 2}), (Names{"step-00000001"}));
  });
}

}  // namespace
}  // namespace tessera
