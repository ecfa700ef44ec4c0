// tessera verify-layout, and the configs it shrinks.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "launch/config/resolve.h"
#include "launch/proof/shrink.h"
#include "launch/run.pb.h"
#include "tests/support/program.h"
#include "tests/support/ranks.h"

namespace tessera::testing {
namespace {

const std::string kConfigs = testing::source_dir() + "/configs/";

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

TEST_F(VerifyLayout, ProvesContextParallelLayouts) {
  const ProgramResult result = run_program("verify-layout " + kConfigs +
                                           "long_context.textproto --shrink --steps 1 --layout cp=2 --layout "
                                           "cp=2,tp=2,context_exchange=ulysses:0-1 --json");
  EXPECT_EQ(result.code, 0) << result.output;
  const nlohmann::json json = last_line(result.output);
  EXPECT_EQ(json["equal"], true);
  ASSERT_EQ(json["layouts"].size(), 2u);
}

TEST_F(VerifyLayout, AStretchedPlanOfExchangesKeepsItsKinds) {
  EXPECT_EQ(stretched_exchange("ring", 32, 3), "ring");
  EXPECT_EQ(stretched_exchange("ulysses-ring:2:16-31", 32, 2), "gather:0,ulysses-ring:2:1");
  EXPECT_EQ(stretched_exchange("ring:0-3", 4, 2), "ring");
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
  refuse("cp=2,context_exchange=rings", "'rings' is no mode with blocks; choose gather, ring,");
  refuse("cp=8,context_exchange=ulysses", "choose gather, ring, or ulysses-ring:N with N from 1, 2, 4");
}

// A smaller config may fit a layout that the real one does not: the real one decides, in the same words.
TEST_F(VerifyLayout, ShrinkingDoesNotMakeALayoutFit) {
  for (const auto& [config, layout] :
       {std::pair{"demo", "tp=7"}, {"llama_8b", "tp=3"}, {"llama_8b", "pp=64"}, {"demo", "cp=3,tp=3"}}) {
    const std::string command = "verify-layout " + kConfigs + config + ".textproto --layout " + layout;
    const ProgramResult shrunken = run_program(command + " --shrink"), whole = run_program(command);
    EXPECT_EQ(shrunken.code, 2) << shrunken.output;
    const auto words = [](const std::string& output) { return output.substr(output.find("tessera: error: ")); };
    ASSERT_NE(whole.output.find("tessera: error: "), std::string::npos) << whole.output;
    EXPECT_EQ(words(shrunken.output), words(whole.output));
  }
  const ProgramResult kept =
      run_program("verify-layout " + kConfigs + "llama_8b.textproto --shrink --steps 1 --layout tp=2");
  EXPECT_EQ(kept.code, 0) << kept.output;
  EXPECT_NE(kept.output.find("kept: model.family = LLAMA, 4 query heads for each key-value head"), std::string::npos)
      << kept.output;
  EXPECT_NE(kept.output.find("cut: model.hidden_size 4096 -> "), std::string::npos) << kept.output;
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

TEST_F(VerifyLayout, AShrunkConfigHasTilesForContextParallelRanksAndBothKindsOfWindows) {
  RunConfig config;
  ModelConfig& model = *config.mutable_model();
  model.set_num_hidden_layers(26);
  model.set_vocab_size(1000);
  model.set_sliding_window(512);
  for (int i = 0; i < 5; ++i) model.add_layer_types("sliding_attention");
  model.add_layer_types("full_attention");
  config.mutable_data()->set_sequence_length(32768);
  std::vector<RunConfig> layouts(1, config);
  layouts[0].mutable_parallel()->set_cp(4);
  layouts[0].mutable_parallel()->set_tp(2);
  RunConfig small = shrunk(config, layouts);
  EXPECT_EQ(small.data().sequence_length(), 512);
  EXPECT_EQ(small.model().sliding_window(), 128);
  ASSERT_EQ(small.model().layer_types_size(), 2);
  EXPECT_EQ(small.model().layer_types(0), "sliding_attention");
  EXPECT_EQ(small.model().layer_types(1), "full_attention");
  *small.mutable_parallel() = layouts[0].parallel();
  EXPECT_NO_THROW(resolve(small, {}, {.world_size = 8, .data = Surroundings::Data::NotNeeded}));

  model.clear_layer_types();
  layouts[0].mutable_parallel()->set_cp(1);
  small = shrunk(config, layouts);
  EXPECT_EQ(small.data().sequence_length(), 32);
  EXPECT_EQ(small.model().sliding_window(), 8);
  EXPECT_EQ(small.model().layer_types_size(), 1);
}

}  // namespace
}  // namespace tessera::testing
