// tessera plan, through the command line.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "launch/commands/command.h"
#include "tensor/check.h"
#include "tests/launch/commands/command_run.h"
#include "tests/support/message_of.h"
#include "tests/support/program.h"

namespace tessera {
namespace {

using testing::message_of;

testing::CommandRun plan(const std::string& config, std::vector<std::string> words) {
  words.insert(words.begin(), {"plan", testing::source_dir() + "/configs/" + config + ".textproto"});
  return testing::run_command(add_plan, words);
}

nlohmann::json json(const std::string& config, std::vector<std::string> words) {
  words.push_back("--json");
  const testing::CommandRun run = plan(config, std::move(words));
  EXPECT_EQ(run.code, 0);
  return run.last_line();
}

const std::string kH100 = testing::source_dir() + "/configs/hardware/h100.textproto";

TEST(PlanCommand, LaysOutALargeModelOnManyRanks) {
  const nlohmann::json planned = json("llama_405b", {"--world", "16384"});
  EXPECT_EQ(planned["ranks"], 16384);
  EXPECT_EQ(planned["parameters"], 405853388800);
  EXPECT_EQ(planned["tokens_per_step"], 2048 * 8192);
  EXPECT_TRUE(planned["fits"].is_null()) << "no hardware was named";
  // Six times parameters and tokens, without the embedding, and attention to a causal half of the sequence.
  const double tokens = 2048.0 * 8192, matrices = 405853388800.0 - 128256.0 * 16384;
  const double attention = 12.0 * 126 * 16384 * 0.5 * 8193;
  EXPECT_NEAR(planned["flops_per_step"].get<double>() / (tokens * (6 * matrices + attention)), 1, 1e-3);
  int64_t ranks = 0;
  for (const auto& same : planned["memory"]) {
    ranks += same["ranks"].get<int64_t>();
    int64_t total = 0;
    for (const auto& [category, bytes] : same["categories"].items()) total += bytes.get<int64_t>();
    EXPECT_EQ(total, same["total_bytes"].get<int64_t>());
  }
  EXPECT_EQ(ranks, 16384) << "every rank is in one class";
  EXPECT_LT(planned["memory"].size(), 200u);
  EXPECT_GT(planned["bytes_per_axis"]["tp"].get<int64_t>(), planned["bytes_per_axis"]["pp"].get<int64_t>());
}

TEST(PlanCommand, SaysWhatWouldMakeItFit) {
  const testing::CommandRun run = plan("llama_405b", {"--world", "16384", "--hardware", kH100, "--json"});
  const nlohmann::json planned = run.last_line();
  EXPECT_EQ(planned["fits"], false);
  EXPECT_TRUE(run.has("activations")) << run.out;  // what dominates
  const std::string change = planned["cheapest_change"]["set"][0];
  EXPECT_TRUE(run.has("--set " + change)) << run.out;
  std::vector<std::string> words = {"--world", "16384", "--hardware", kH100};
  for (const auto& setting : planned["cheapest_change"]["set"]) words.insert(words.end(), {"--set", setting});
  EXPECT_EQ(json("llama_405b", words)["fits"], true);
}

TEST(PlanCommand, NamesNoChangeThatIsNotNeeded) {
  const std::vector<std::string> words = {
      "--world", "64", "--hardware", kH100, "--set", "data.sequence_length=1048576", "--set", "parallel.cp=16"};
  const nlohmann::json changes = json("llama_8b", words)["cheapest_change"]["set"];
  ASSERT_EQ(changes.size(), 2u) << changes.dump();
  for (size_t left_out = 0; left_out < changes.size(); ++left_out) {
    std::vector<std::string> fewer = words;
    for (size_t i = 0; i < changes.size(); ++i) {
      if (i != left_out) fewer.insert(fewer.end(), {"--set", changes[i]});
    }
    EXPECT_EQ(json("llama_8b", fewer)["fits"], false) << "without " << changes[left_out];
  }
}

TEST(PlanCommand, RanksThatOwnLessAreAClassOfTheirOwn) {
  // Over 8 owners, 2 rows (key-value heads) of QKV: two own one, the others none; and 61 rows of the vocabulary: seven
  // own 8, the last 5.
  const nlohmann::json planned =
      json("demo", {"--set", "parallel.tp=1", "--world", "8", "--set", "parallel.zero_stage=1", "--set",
                    "model.vocab_size=61", "--set", "data.tokenizer=", "--set", "data.micro_batch_size=1"});
  ASSERT_EQ(planned["memory"].size(), 3u) << planned.dump();
  EXPECT_EQ(planned["memory"][0]["ranks"], 2);
  EXPECT_EQ(planned["memory"][1]["ranks"], 5);
  EXPECT_EQ(planned["memory"][2]["ranks"], 1);
}

TEST(PlanCommand, RefusesWhatCannotBeLaidOut) {
  EXPECT_NE(message_of<UsageError>([] {
              plan("llama_405b", {"--world", "100"});
            }).find("parallel."),
            std::string::npos);
  EXPECT_NE(message_of<UsageError>([] {
              plan("llama_8b", {"--set", "parallel.tp=3", "--set", "parallel.dp=1"});
            }).find("model.num_key_value_heads = 8: must be a multiple of parallel.tp = 3"),
            std::string::npos);
}

}  // namespace
}  // namespace tessera
