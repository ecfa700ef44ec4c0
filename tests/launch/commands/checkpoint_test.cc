// tessera checkpoint list, inspect, verify, diff, prune and reshard, through the command line.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "launch/commands/command.h"
#include "tests/checkpoint/rig.h"
#include "tests/launch/commands/command_run.h"
#include "tests/support/program.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

using Output = testing::CommandRun;

Output run(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "checkpoint");
  return testing::run_command(add_checkpoint, arguments);
}

TEST(CheckpointCommand, ListsStepsWithTheirState) {
  const std::string run_directory = fresh_directory();
  const std::string folder = run_directory + "/checkpoints";
  save_filled(folder, 10, 1, {.parts = 2});
  save_filled(folder, 20, 1, {.parts = 2});
  fs::remove(folder + "/step-00000020/shard-00000.h5");
  fs::create_directories(folder + "/step-00000030.tmp-x");
  for (const std::string& path : {run_directory, folder}) {
    const Output output = run({"list", path, "--json"});
    EXPECT_EQ(output.code, 0);
    EXPECT_TRUE(output.has("shard-00000.h5 is missing")) << output.out;
    const auto rows = output.last_line().at("checkpoints");
    ASSERT_EQ(rows.size(), 3u);
    EXPECT_EQ(rows[0].at("step"), 10);
    EXPECT_EQ(rows[0].at("state"), "valid");
    EXPECT_EQ(rows[0].at("layout"), save_info("", 10).layout);
    EXPECT_GT(rows[0].at("size"), 0);
    EXPECT_GE(rows[0].at("age"), 0);
    EXPECT_EQ(rows[1].at("state"), "broken");
    EXPECT_EQ(rows[2].at("state"), "unfinished");
  }
  EXPECT_TRUE(run({"list", fresh_directory()}).has("no checkpoint in"));
  EXPECT_THROW(run({"list", run_directory + "/none"}), CheckpointError);
}

TEST(CheckpointCommand, InspectsTensors) {
  const std::string run_directory = fresh_directory();
  const std::string folder = run_directory + "/checkpoints";
  save_filled(folder, 10, 1, {.parts = 2});
  save_filled(folder, 20, 2, {.parts = 2});
  const Output output = run({"inspect", folder + "/step-00000010", "--json"});
  EXPECT_EQ(output.code, 0);
  EXPECT_TRUE(output.has("master/blocks.0.attention.qkv   [13, 4]")) << output.out;
  const auto object = output.last_line();
  EXPECT_EQ(object.at("step"), 10);
  EXPECT_EQ(object.at("elements"), 13 * 4 * 2 + 3 + 30);
  EXPECT_EQ(object.at("tensors").size(), 4u);
  EXPECT_EQ(object.at("tensors")[0].at("tensor"), "counts");
  EXPECT_EQ(object.at("tensors")[0].at("shape"), (std::vector<int>{5, 2, 3}));
  EXPECT_EQ(object.at("cursors").at("samples_seen"), 100);
  EXPECT_EQ(run({"inspect", run_directory, "--json"}).last_line().at("step"), 20) << "the newest";
  fs::remove(folder + "/step-00000020/manifest.textproto");
  EXPECT_EQ(run({"inspect", run_directory, "--json"}).last_line().at("step"), 10) << "the newest valid one";
  EXPECT_THROW(run({"inspect", folder + "/step-00000020"}), CheckpointError);
  EXPECT_THROW(run({"inspect", fresh_directory()}), CheckpointError);
}

TEST(CheckpointCommand, VerifiesOneOrAll) {
  const std::string run_directory = fresh_directory();
  const std::string folder = run_directory + "/checkpoints";
  for (const int step : {10, 20}) save_filled(folder, step, 1, {.parts = 2});
  EXPECT_EQ(run({"verify", run_directory}).code, 0);
  std::string bytes = slurp(folder + "/step-00000020/shard-00001.h5");
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  spill(folder + "/step-00000020/shard-00001.h5", bytes);
  const Output all = run({"verify", run_directory, "--json"});
  EXPECT_EQ(all.code, 4);
  EXPECT_TRUE(all.has("step-00000020/shard-00001.h5")) << all.out;
  EXPECT_EQ(all.last_line().at("valid"), false);
  EXPECT_EQ(all.last_line().at("checkpoints")[0].at("state"), "valid");
  EXPECT_EQ(all.last_line().at("checkpoints")[1].at("state"), "broken");
  EXPECT_EQ(run({"verify", folder + "/step-00000010/"}).code, 0);
  EXPECT_EQ(run({"verify", folder + "/step-00000020"}).code, 4);
  EXPECT_EQ(run({"verify", folder + "/step-00000030"}).code, 4);
  EXPECT_THROW(run({"verify", run_directory + "/none"}), CheckpointError);
}

TEST(CheckpointCommand, ComparesTwo) {
  const std::string directory = fresh_directory();
  const std::string a = directory + "/a", b = directory + "/b", c = directory + "/c";
  save_filled(a + "/checkpoints", 10, 1, {.parts = 1});
  save_filled(b + "/checkpoints", 10, 1, {.parts = 3});
  save_filled(c + "/checkpoints", 10, 2, {.parts = 3});
  const Output equal = run({"diff", a, b + "/checkpoints/step-00000010", "--json"});
  EXPECT_EQ(equal.code, 0) << equal.out;
  EXPECT_EQ(equal.last_line().at("equal"), true);
  EXPECT_EQ(equal.last_line().at("tensors_compared"), 4);
  const Output differing = run({"diff", a, c, "--json"});
  EXPECT_EQ(differing.code, 5);
  EXPECT_TRUE(differing.has("samples_seen: 100 against 200")) << differing.out;
  EXPECT_EQ(differing.last_line().at("tensors").size(), 4u);
  EXPECT_GT(differing.last_line().at("tensors")[0].at("differing"), 0);
}

TEST(CheckpointCommand, PrunesBehindWhatItHasVerified) {
  const std::string run_directory = fresh_directory();
  const std::string folder = run_directory + "/checkpoints";
  for (const int step : {10, 20, 30, 40}) save_filled(folder, step, 1, {});
  const Output output = run({"prune", run_directory, "--keep-last", "2", "--keep-every", "20", "--json"});
  EXPECT_EQ(output.code, 0);
  EXPECT_EQ(output.last_line().at("removed"), nlohmann::json({"step-00000010"})) << output.out;
  const Output list = run({"list", folder, "--json"});
  const auto rows = list.last_line().at("checkpoints");
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0].at("state"), "valid");
  EXPECT_EQ(rows[1].at("state"), "verified");
  EXPECT_EQ(rows[2].at("state"), "verified");
  EXPECT_THROW(run({"prune", run_directory, "--keep-last", "1"}), UsageError);
}

TEST(CheckpointCommand, ADryPruneSaysWhatWouldGoAndChangesNothing) {
  const std::string run_directory = fresh_directory();
  for (const int step : {10, 20, 30, 40}) save_filled(run_directory + "/checkpoints", step, 1, {});
  const Output dry = run({"prune", run_directory, "--dry-run", "--json"});
  EXPECT_EQ(dry.code, 0);
  EXPECT_EQ(dry.last_line().at("would_remove"), nlohmann::json({"step-00000010", "step-00000020"})) << dry.out;
  const Output list = run({"list", run_directory, "--json"});
  ASSERT_EQ(list.last_line().at("checkpoints").size(), 4u);
  for (const auto& row : list.last_line().at("checkpoints")) EXPECT_EQ(row.at("state"), "valid") << "no marks either";
  EXPECT_EQ(run({"prune", run_directory, "--json"}).last_line().at("removed"), dry.last_line().at("would_remove"));
}

TEST(CheckpointCommand, PruneKeepsEverythingWhenTheNewestIsDamaged) {
  const std::string folder = fresh_directory();
  for (const int step : {10, 20, 30}) save_filled(folder, step, 1, {});
  for (const char* name : {"/step-00000020/shard-00000.h5", "/step-00000030/shard-00000.h5"}) {
    spill(folder + name, std::string(fs::file_size(folder + name), 'x'));  // of the right size
  }
  const Output output = run({"prune", folder, "--json"});
  EXPECT_TRUE(output.has("do not match their hash")) << output.out;
  EXPECT_TRUE(output.last_line().at("removed").empty()) << output.out;
}

TEST(CheckpointCommand, ReshardsIntoEqualCopies) {
  const std::string folder = fresh_directory();
  save_filled(folder, 10, 1, {.parts = 3});
  const Output output = run({"reshard", folder, folder + "/copy", "--shards", "2", "--json"});
  EXPECT_EQ(output.code, 0);
  const std::string path = output.last_line().at("path");
  EXPECT_TRUE(fs::exists(path + "/shard-00001.h5"));
  EXPECT_FALSE(fs::exists(path + "/shard-00002.h5"));
  EXPECT_EQ(run({"diff", folder + "/step-00000010", path}).code, 0);
}

TEST(CheckpointCommand, H5pyFindsWhatInspectTells) {
  const std::string folder = fresh_directory(), other = folder + "/inspected.json";
  save_filled(folder, 10, 1, {.parts = 3, .replicas = 2});
  const std::string checkpoint = folder + "/step-00000010";
  spill(other, run({"inspect", checkpoint, "--json"}).last_line().dump());
  const auto result = testing::run_shell(fmt::format("/usr/bin/python3 {}/tests/launch/commands/h5py_inspects.py {} {}",
                                                     testing::source_dir(), checkpoint, other));
  if (result.code == 77 || result.code == 127) GTEST_SKIP() << "needs /usr/bin/python3 with h5py (python3-h5py)";
  EXPECT_EQ(result.code, 0) << result.output;
}

TEST(CheckpointCommand, InspectShowsHistograms) {
  const std::string folder = fresh_directory();
  save_filled(folder, 10, 1, {});
  const Output output = run({"inspect", folder, "--histogram", "--json"});
  EXPECT_TRUE(output.has("2^")) << output.out;
  const auto line = output.last_line();
  for (const auto& tensor : line.at("tensors")) {
    int64_t counted = tensor.at("zeros").get<int64_t>() + tensor.at("non_finite").get<int64_t>(), elements = 1;
    for (const auto& bin : tensor.at("magnitudes")) counted += bin[1].get<int64_t>();
    for (const auto& dim : tensor.at("shape")) elements *= dim.get<int64_t>();
    EXPECT_EQ(counted, elements) << tensor;
  }
}

}  // namespace
}  // namespace tessera
