// A run of 40 steps on a small text, started through the command line as users start it.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "checkpoint/format/names.h"
#include "checkpoint/scan.h"
#include "tests/support/program.h"
#include "tests/support/ranks.h"

namespace tessera::testing {

class SmallRun : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (under_mpi()) return;
    root_ = std::filesystem::path(::testing::TempDir()) / ("small_run_" + std::to_string(getpid()));
    std::filesystem::create_directories(root_ / "corpus");
    std::ofstream text(root_ / "corpus/a.txt");
    for (int i = 0; i < 4000; ++i) text << "the tile " << i * i % 97 << " fits ";
    text.close();
    const ProgramResult built = run_program("data build --input " + path("corpus") + " --tokenizer bytes --output " +
                                            path("shards") + " --validation-fraction 0");
    ASSERT_EQ(built.code, 0) << built.output;
    std::ofstream(root_ / "run.textproto") << R"(
      run { name: "test" steps: 40 seed: 5 }
      model { hidden_size: 32 num_hidden_layers: 1 num_attention_heads: 4 num_key_value_heads: 2 }
      data { sequence_length: 32 global_batch_size: 4 micro_batch_size: 2 tokenizer: "bytes"
             train { path: ")" << path("shards/train")
                                           << R"(" } }
      lr_schedule { kind: WSD learning_rate: 0.01 warmup_steps: 2 decay_end_step: 40 decay_steps: 3 }
      checkpoint { every_steps: 4 keep_last: 3 }
      logging { measure_peak: false tensorboard: false every_steps: 10 }
    )";
  }
  static void TearDownTestSuite() {
    if (!under_mpi()) std::filesystem::remove_all(root_);
  }
  void SetUp() override {
    if (under_mpi()) GTEST_SKIP() << "starts mpirun itself";
  }

  static std::string path(const std::string& name) { return (root_ / name).string(); }
  static std::string arguments(const std::string& dir, const std::string& more = "") {
    return "train " + path("run.textproto") + " --set run.dir=" + path(dir) + " " + more;
  }
  static ProgramResult train(const std::string& dir, const std::string& more = "") {
    return run_program(arguments(dir, more));
  }
  static std::string metrics(const std::string& dir) { return path(dir + "/metrics.jsonl"); }
  // Leaves a file in the run directory.
  static void ask(const std::string& dir, const std::string& name) {
    std::filesystem::create_directories(root_ / dir);
    std::ofstream(root_ / dir / name) << "";
  }
  static std::vector<CheckpointEntry> entries(const std::string& dir) {
    PosixStorage storage;
    return scan(storage, path(dir + "/checkpoints"));
  }
  static std::vector<int64_t> steps(const std::string& dir) {
    std::vector<int64_t> all;
    for (const auto& entry : entries(dir)) {
      if (entry.state == CheckpointEntry::State::Valid) all.push_back(entry.step);
    }
    return all;
  }
  static int64_t newest(const std::string& dir) {
    const auto all = steps(dir);
    return all.empty() ? 0 : all.back();
  }
  // Losses of all steps, and the last checkpoint's tensors, as if nothing had happened.
  static void expect_equal_runs(const std::string& a, const std::string& b, int64_t step) {
    EXPECT_EQ(losses(a), losses(b));
    const std::string shard = "/checkpoints/" + step_name(step) + "/shard-00000.h5";
    EXPECT_GT(read_whole(path(a) + shard).size(), 0u);
    EXPECT_TRUE(read_whole(path(a) + shard) == read_whole(path(b) + shard));
  }
  static std::vector<std::string> losses(const std::string& dir) {
    std::vector<std::string> lines;
    std::ifstream file(metrics(dir));
    for (std::string line; std::getline(file, line);) {
      const nlohmann::json values = nlohmann::json::parse(line);
      if (values.contains("loss")) lines.push_back(values["step"].dump() + " " + values["loss"].dump());
    }
    return lines;
  }

  static inline std::filesystem::path root_;
};

}  // namespace tessera::testing
