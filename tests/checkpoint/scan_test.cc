#include "checkpoint/scan.h"

#include "tests/checkpoint/rig.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

TEST(Scan, TellsValidBrokenAndUnfinishedApart) {
  const std::string directory = fresh_directory();
  for (const int step : {3, 20, 100}) save_filled(directory, step, 1, {.parts = 2});
  fs::remove(directory + "/step-00000020/shard-00001.index");
  fs::create_directories(directory + "/step-00000110.tmp-x");
  fs::create_directories(directory + "/elsewhere");
  PosixStorage storage;
  const auto entries = scan(storage, directory);
  ASSERT_EQ(entries.size(), 4u);
  const std::vector<std::pair<int64_t, std::string>> expected = {
      {3, "valid"}, {20, "broken"}, {100, "valid"}, {110, "unfinished"}};
  for (size_t i = 0; i < entries.size(); ++i) {
    EXPECT_EQ(entries[i].step, expected[i].first);
    EXPECT_EQ(name(entries[i].state), expected[i].second);
    EXPECT_GT(entries[i].modified, 0);
  }
  EXPECT_NE(entries[1].problem.find("shard-00001.index is missing"), std::string::npos) << entries[1].problem;
  EXPECT_EQ(entries[0].layout, save_info("", 3).layout);
  int64_t bytes = 0;
  for (const auto& file : fs::directory_iterator(directory + "/step-00000003")) {
    if (file.path().filename() != kManifestName) bytes += static_cast<int64_t>(file.file_size());
  }
  EXPECT_EQ(entries[0].bytes, bytes);
  EXPECT_EQ(published_names(storage, directory),
            (std::vector<std::string>{"step-00000100", "step-00000020", "step-00000003"}));
  EXPECT_TRUE(scan(storage, directory + "/missing").empty());
  EXPECT_TRUE(published_names(storage, directory + "/missing").empty());
}

TEST(Scan, ARenamedCheckpointIsNotTaken) {
  const std::string directory = fresh_directory();
  save_filled(directory, 3, 1, {});
  fs::rename(directory + "/step-00000003", directory + "/step-00000009");
  PosixStorage storage;
  const std::string message =
      message_of<CheckpointError>([&] { open_complete(storage, directory + "/step-00000009"); });
  EXPECT_NE(message.find("says in its manifest that it is step 3"), std::string::npos) << message;
  // Under a name that is no step's, it can be opened: a copy kept elsewhere.
  fs::rename(directory + "/step-00000009", directory + "/best");
  EXPECT_EQ(open_complete(storage, directory + "/best")->info().step, 3);
}

}  // namespace
}  // namespace tessera
