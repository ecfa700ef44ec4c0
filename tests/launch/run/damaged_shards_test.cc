// Token shards that are damaged before a run, or under it, on the command line.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/data/spoil.h"
#include "tests/support/program.h"
#include "tests/support/ranks.h"

namespace tessera::testing {
namespace {

namespace fs = std::filesystem;

class DamagedShards : public ::testing::Test {
 protected:
  void SetUp() override {
    if (under_mpi()) GTEST_SKIP() << "starts programs itself";
    fs::create_directories(root_ / "corpus");
    std::ofstream text(root_ / "corpus/text.txt");
    for (int i = 0; i < 4000; ++i) text << i * 7919 % 1000 << ' ';
    text.close();
    const ProgramResult built = run_program("data build --input " + path("corpus") +
                                            " --tokenizer bytes --validation-fraction 0 --output " + path("shards"));
    ASSERT_EQ(built.code, 0) << built.output;
    std::ofstream(root_ / "run.textproto") << R"(
      run { steps: 2000 dir: ")" << path("run")
                                           << R"(" }
      model { hidden_size: 32 num_hidden_layers: 1 num_attention_heads: 2 }
      data { sequence_length: 32 global_batch_size: 2 tokenizer: "bytes" train { path: ")"
                                           << path("shards/train") << R"(" } }
      lr_schedule { learning_rate: 0.001 warmup_steps: 0 }
      logging { measure_peak: false tensorboard: false every_steps: 1 }
    )";
  }
  void TearDown() override { fs::remove_all(root_); }

  std::string path(const std::string& name) const { return (root_ / name).string(); }
  std::string shard() const { return path("shards/train/shard-000000.h5"); }

  const fs::path root_ = fs::path(::testing::TempDir()) / ("damaged_shards_" + std::to_string(getpid()));
};

TEST_F(DamagedShards, AShardThatIsCutOffUnderARunEndsItWithItsName) {
  const ProgramResult result =
      disturb_program("train " + path("run.textproto"), 0, path("run/metrics.jsonl"), "\"step\":3,",
                      [&](int) { fs::resize_file(shard(), fs::file_size(shard()) / 2); });
  EXPECT_EQ(result.code, 3) << result.output;
  EXPECT_NE(result.output.find(shard() + ": cut off while it was read"), std::string::npos) << result.output;
}

TEST_F(DamagedShards, AShardThatIsWrittenToUnderARunEndsItWithItsName) {
  const ProgramResult result =
      disturb_program("train " + path("run.textproto"), 0, path("run/metrics.jsonl"), "\"step\":3,",
                      [&](int) { testing_data::corrupt(shard(), testing_data::dataset_offset(shard(), "tokens")); });
  EXPECT_EQ(result.code, 3) << result.output;
  EXPECT_NE(result.output.find(shard() + ": written to while it was read"), std::string::npos) << result.output;
}

// A token that became another of the vocabulary is seen by the hash alone.
TEST_F(DamagedShards, AreFoundBeforeTheFirstStepWhenAskedFor) {
  testing_data::corrupt(shard(), testing_data::dataset_offset(shard(), "tokens"));
  const std::string train = "train " + path("run.textproto") + " --set run.steps=2 --local-ranks 2 --set parallel.dp=2";
  const ProgramResult verified = run_program(train + " --set data.verify=true");
  EXPECT_EQ(verified.code, 3) << verified.output;
  EXPECT_NE(verified.output.find(shard() + ": tokens are damaged"), std::string::npos) << verified.output;
  EXPECT_EQ(read_whole(path("run/metrics.jsonl")), "");
  const ProgramResult unasked = run_program(train);
  EXPECT_EQ(unasked.code, 0) << unasked.output;
}

}  // namespace
}  // namespace tessera::testing
