// tessera verify-layout, and the configs it shrinks.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "launch/config/resolve.h"
#include "launch/run.pb.h"
#include "launch/shrink.h"
#include "tests/support/program.h"
#include "tests/support/ranks.h"

namespace tessera::testing {
namespace {

const std::string kConfigs = std::string(TESSERA_SOURCE_DIR) + "/configs/";

class VerifyLayout : public ::testing::Test {
 protected:
  void SetUp() override {
    if (under_mpi()) GTEST_SKIP() << "starts programs itself";
  }
};

nlohmann::json last_line(const std::string& output) {
  const size_t begin = output.rfind('\n', output.size() - 2);
  return nlohmann::json::parse(output.substr(begin == std::string::npos ? 0 : begin + 1));
}

TEST_F(VerifyLayout, ProvesTheLayoutsOfLargeConfigs) {
  const ProgramResult result = run_program("verify-layout " + kConfigs +
                                           "llama_70b.textproto --shrink --steps 2 --layout tp=2,pp=2 --layout "
                                           "pp=4,dp=2,recompute=full --layout pp=2,schedule=interleaved --json");
  EXPECT_EQ(result.code, 0) << result.output;
  const nlohmann::json json = last_line(result.output);
  EXPECT_EQ(json["equal"], true);
  ASSERT_EQ(json["layouts"].size(), 3u);
  EXPECT_EQ(json["layouts"][1]["layout"], "pp=4,dp=2,recompute=full");
  EXPECT_EQ(json["layouts"][1]["ranks"], 8);
  for (const auto& layout : json["layouts"]) {
    for (const char* key : {"loss", "grad_norm", "gradient", "state"}) EXPECT_LE(layout[key], 1e-9) << key;
  }
}

TEST_F(VerifyLayout, TakesTheConfigsOwnLayoutWhenNoneIsNamed) {
  const ProgramResult result = run_program("verify-layout " + kConfigs + "demo.textproto --shrink --steps 1");
  EXPECT_EQ(result.code, 0) << result.output;
  EXPECT_NE(result.output.find("the config's"), std::string::npos) << result.output;
  EXPECT_NE(result.output.find("equal"), std::string::npos) << result.output;
}

TEST_F(VerifyLayout, TakesSchedulesFromFilesAndSearches) {
  const std::string file = ::testing::TempDir() + "verify_layout_" + std::to_string(getpid()) + ".txt";
  ASSERT_EQ(run_program("schedule --kind zb-v --stages 2 --microbatches 5 --save " + file).code, 0);
  const ProgramResult result = run_program("verify-layout " + kConfigs +
                                           "demo.textproto --shrink --steps 1 --layout pp=2,schedule=file:" + file +
                                           " --layout pp=2,schedule=search,memory_limit=1.5");
  EXPECT_EQ(result.code, 0) << result.output;
}

TEST_F(VerifyLayout, SaysWhatIsWrongWithALayout) {
  const auto refuse = [](const std::string& layout, const std::string& words) {
    const ProgramResult result = run_program("verify-layout " + kConfigs + "demo.textproto --layout " + layout);
    EXPECT_EQ(result.code, 2) << result.output;
    EXPECT_NE(result.output.find(words), std::string::npos) << result.output;
  };
  refuse("tq=2", "did you mean \"tp\"?");
  refuse("pp=64", "each stage needs a block; choose pp up to");
  refuse("tp=3", "model.num_key_value_heads = ");
  refuse("pp=2,schedule=1f2b", "parallel.schedule = 1f2b: unknown");
}

TEST_F(VerifyLayout, AShrunkConfigKeepsItsShape) {
  RunConfig config;
  ModelConfig& model = *config.mutable_model();
  model.set_hidden_size(8192);
  model.set_num_hidden_layers(80);
  model.set_num_attention_heads(64);
  model.set_num_key_value_heads(8);
  model.set_vocab_size(128256);
  model.set_sliding_window(4096);
  config.mutable_data()->set_sequence_length(8192);
  config.mutable_data()->set_global_batch_size(1024);
  std::vector<RunConfig> layouts(2, config);
  layouts[0].mutable_parallel()->set_tp(4);
  layouts[0].mutable_parallel()->set_dp(3);
  layouts[1].mutable_parallel()->set_pp(5);
  RunConfig small = shrunk(config, layouts);
  EXPECT_EQ(small.model().num_key_value_heads(), 4);   // every tp divides them
  EXPECT_EQ(small.model().num_attention_heads(), 16);  // grouped, as before
  EXPECT_EQ(small.model().num_hidden_layers(), 6);     // uneven over five stages
  EXPECT_EQ(small.data().global_batch_size() % 3, 0);
  EXPECT_GE(small.data().global_batch_size(), 10);  // two microbatches a stage
  EXPECT_LT(small.model().sliding_window(), small.data().sequence_length());
  EXPECT_EQ(changes(config, small).size(), 11u - 2);  // the microbatch was small; intermediate_size was not set
  for (RunConfig& layout : layouts) {
    const ParallelConfig parallel = layout.parallel();
    layout = small;
    *layout.mutable_parallel() = parallel;
    const int ranks = parallel.tp() * parallel.pp() * std::max(1, parallel.dp());
    EXPECT_NO_THROW(resolve(layout, {}, {.world_size = ranks, .data = Surroundings::Data::NotNeeded}));
  }
}

}  // namespace
}  // namespace tessera::testing
