#include "checkpoint/retention.h"

#include "checkpoint/scan.h"
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

TEST(Retention, KeepsTheLastOnes) {
  const std::string directory = fresh_directory();
  for (const int step : {1, 2, 3, 4, 5}) save_filled(directory, step, 1, {.parts = 2});
  PosixStorage storage;
  EXPECT_TRUE(prune(storage, directory, 5).empty());
  EXPECT_EQ(prune(storage, directory, 3), (Names{"step-00000001", "step-00000002"}));
  EXPECT_EQ(steps_in(directory), (Names{"step-00000003", "step-00000004", "step-00000005"}));
}

TEST(Retention, BrokenOnesDoNotCount) {
  const std::string directory = fresh_directory();
  for (const int step : {1, 2, 3, 4, 5, 6}) save_filled(directory, step, 1, {});
  for (const char* broken : {"/step-00000002", "/step-00000005", "/step-00000006"}) {
    fs::remove(directory + broken + "/shard-00000.h5");
  }
  PosixStorage storage;
  // Valid are 1, 3 and 4. The broken 5 and 6 have nothing newer that is valid; 2 lies behind two.
  EXPECT_EQ(prune(storage, directory, 2), (Names{"step-00000001", "step-00000002"}));
  EXPECT_EQ(steps_in(directory), (Names{"step-00000003", "step-00000004", "step-00000005", "step-00000006"}));
}

TEST(Retention, NothingIsRemovedWhenTooFewAreValid) {
  const std::string directory = fresh_directory();
  for (const int step : {1, 2, 3}) save_filled(directory, step, 1, {});
  for (const char* broken : {"/step-00000002", "/step-00000003"}) {
    fs::remove(directory + broken + "/manifest.textproto");
  }
  PosixStorage storage;
  EXPECT_TRUE(prune(storage, directory, 2).empty());
  EXPECT_TRUE(prune(storage, directory + "/missing", 2).empty());
  EXPECT_EQ(steps_in(directory).size(), 3u);
}

TEST(Retention, OldLeftoversGoToo) {
  const std::string directory = fresh_directory();
  for (const int step : {2, 4}) save_filled(directory, step, 1, {});
  for (const char* name : {"/step-00000001.tmp-a", "/step-00000003.tmp-b", "/step-00000004.tmp-c", "/mine"}) {
    fs::create_directories(directory + name);
  }
  PosixStorage storage;
  EXPECT_EQ(prune(storage, directory, 2), (Names{"step-00000001.tmp-a", "step-00000003.tmp-b"}));
  EXPECT_EQ(steps_in(directory), (Names{"mine", "step-00000002", "step-00000004", "step-00000004.tmp-c"}));
}

TEST(Retention, FewerThanTwoIsRefused) {
  PosixStorage storage;
  for (const int keep : {1, 0, -3}) {
    EXPECT_NE(message_of<UsageError>([&] { prune(storage, fresh_directory(), keep); }).find("checkpoint.keep_last = "),
              std::string::npos);
  }
}

TEST(Retention, EveryRankLearnsWhatWasRemovedAndWhatWentWrong) {
  const std::string directory = fresh_directory();
  for (const int step : {1, 2, 3}) save_filled(directory, step, 1, {});
  run_ranks(2, [&](Comm& world) {
    FaultyStorage storage;
    storage.before = [](const std::string& operation, const std::string& path) {
      if (operation == "rename") throw IoError("cannot rename " + path);
    };
    EXPECT_NE(message_of<IoError>([&] { prune(world, storage, directory, 2); }).find("rank 0: cannot rename"),
              std::string::npos);
    storage.before = nullptr;
    EXPECT_EQ(prune(world, storage, directory, 2), (Names{"step-00000001"}));
  });
}

}  // namespace
}  // namespace tessera
