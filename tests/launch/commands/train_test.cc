// The main job through the command line: train under mpirun, stop, kill, resume, evaluate, generate; and what is said
// when something is wrong.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/support/program.h"
#include "tests/support/ranks.h"

namespace tessera::testing {
namespace {

namespace fs = std::filesystem;

// One data set for all tests of this file.
class TrainCommand : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (under_mpi()) return;
    root_ = fs::path(::testing::TempDir()) / ("train_command_" + std::to_string(getpid()));
    fs::create_directories(root_ / "corpus");
    const char* words[] = {"the", "tile", "of", "a", "mosaic", "fits", "every", "other", "one", "exactly"};
    unsigned state = 1;
    for (int d = 0; d < 60; ++d) {
      std::ofstream file(root_ / "corpus" / (std::to_string(d) + ".txt"));
      for (int i = 0; i < 150; ++i)
        file << words[(state = state * 1664525 + 1013904223) >> 16 & 7] << ' ' << words[d % 10] << ' ';
    }
    const ProgramResult built = run_program("data build --input " + path("corpus") + " --tokenizer bytes --output " +
                                            path("shards") + " --validation-fraction 0.1");
    ASSERT_EQ(built.code, 0) << built.output;
    std::ofstream(root_ / "run.textproto") << R"(
      run { name: "test" steps: 8 seed: 5 }
      model { hidden_size: 32 num_hidden_layers: 2 num_attention_heads: 4 num_key_value_heads: 2 }
      parallel { tp: 2 }
      data { sequence_length: 32 global_batch_size: 4 micro_batch_size: 1 tokenizer: "bytes"
             train { path: ")" << path("shards/train")
                                           << R"(" } validation { path: ")" << path("shards/validation") << R"(" } }
      lr_schedule { kind: WSD learning_rate: 0.01 warmup_steps: 2 decay_end_step: 8 decay_steps: 3 }
      checkpoint { every_steps: 2 keep_last: 3 }
      evaluation { every_steps: 4 samples: 8 }
      logging { measure_peak: false every_steps: 2 }
    )";
  }
  static void TearDownTestSuite() {
    if (!under_mpi()) fs::remove_all(root_);
  }
  void SetUp() override {
    if (under_mpi()) GTEST_SKIP() << "starts mpirun itself";
  }

  static std::string path(const std::string& name) { return (root_ / name).string(); }
  // Trains into directory `dir`.
  static ProgramResult train(const std::string& dir, int ranks, const std::string& more = "") {
    return run_program(arguments(dir, more), ranks);
  }
  static std::string arguments(const std::string& dir, const std::string& more = "") {
    return "train " + path("run.textproto") + " --set run.dir=" + path(dir) + " " + more;
  }
  static std::string checkpoint(const std::string& dir, int step) {
    char name[32];
    std::snprintf(name, sizeof(name), "step-%08d", step);
    return path(dir + "/checkpoints/" + name);
  }

  // Shards and their indexes byte for byte.
  static void expect_equal_checkpoints(const std::string& a, const std::string& b) {
    int files = 0;
    for (const auto& entry : fs::directory_iterator(a)) {
      const std::string name = entry.path().filename();
      if (name.rfind("shard-", 0) != 0) continue;
      ++files;
      EXPECT_EQ(read_whole(entry.path()), read_whole(b + "/" + name)) << name;
    }
    EXPECT_GT(files, 0) << a;
  }
  // Loss, gradient norm, learning rate and bytes sent of each step, and the validation losses, as written.
  static std::vector<std::string> curve(const std::string& dir) {
    std::vector<std::string> lines;
    std::ifstream file(path(dir + "/metrics.jsonl"));
    for (std::string line; std::getline(file, line);) {
      nlohmann::json values = nlohmann::json::parse(line);
      for (const char* key :
           {"step_seconds", "tokens_per_second", "mfu", "memory_bytes", "compute_seconds", "bubble_seconds",
            "data_seconds", "optimizer_seconds", "host_seconds", "communication_seconds", "mean", "worst"})
        values.erase(key);
      if (values.contains("communication")) {
        for (auto& [group, use] : values["communication"].items()) use.erase("seconds");
      }
      lines.push_back(values.dump());
    }
    return lines;
  }
  static void expect_failure(const ProgramResult& result, int code, const std::vector<std::string>& words) {
    EXPECT_EQ(result.code, code) << result.output;
    for (const std::string& word : words)
      EXPECT_NE(result.output.find(word), std::string::npos) << word << "\n" << result.output;
  }

  static fs::path root_;
};
fs::path TrainCommand::root_;

TEST_F(TrainCommand, StopAndResumeEqualsUninterruptedBitForBit) {
  for (const int ranks : {1, 4}) {
    const std::string whole = "whole" + std::to_string(ranks), parts = "parts" + std::to_string(ranks);
    const std::string layout = ranks == 1 ? "--set parallel.tp=1 " : "";
    const ProgramResult one = train(whole, ranks == 1 ? 0 : ranks, layout);
    ASSERT_EQ(one.code, 0) << one.output;
    ASSERT_EQ(train(parts, ranks == 1 ? 0 : ranks, layout + "--set run.steps=5").code, 0);
    const ProgramResult resumed = train(parts, ranks == 1 ? 0 : ranks, layout);
    ASSERT_EQ(resumed.code, 0) << resumed.output;
    EXPECT_NE(resumed.output.find("resumed from"), std::string::npos) << resumed.output;
    expect_equal_checkpoints(checkpoint(whole, 8), checkpoint(parts, 8));
    std::vector<std::string> expected = curve(whole), found = curve(parts);
    // Stopping at step 5 evaluated once more.
    std::erase_if(found, [](const std::string& line) {
      return line.find("validation_loss") != line.npos && line.find("\"step\":5") != line.npos;
    });
    EXPECT_EQ(found, expected);
    const ProgramResult again = train(parts, ranks == 1 ? 0 : ranks, layout);
    EXPECT_EQ(again.code, 0);
    EXPECT_NE(again.output.find("nothing left to do"), std::string::npos) << again.output;
  }
}

// The loader's tokens, training and validation with its padding, dealt over MPI.
TEST_F(TrainCommand, ContextParallelRanksTrainOnTheSameTokens) {
  const std::string common = "--set parallel.tp=1 --set data.sequence_length=192 --set run.compute_dtype=F64 ";
  ASSERT_EQ(train("context1", 0, common).code, 0);
  const ProgramResult dealt = train("context2", 2, common + "--set parallel.cp=2 --set run.steps=6");
  ASSERT_EQ(dealt.code, 0) << dealt.output;
  EXPECT_NE(dealt.output.find("dealt tokens"), std::string::npos) << dealt.output;
  const ProgramResult resumed = train("context2", 4, common + "--set parallel.cp=2 --set parallel.pp=2");
  ASSERT_EQ(resumed.code, 0) << resumed.output;
  const auto by_step = [](const std::string& dir) {
    std::map<std::string, nlohmann::json> lines;
    for (const std::string& line : curve(dir)) {
      const nlohmann::json values = nlohmann::json::parse(line);
      lines[fmt::format("{} {}", values["step"].get<int>(), values.contains("loss"))] = values;
    }
    return lines;
  };
  const auto one = by_step("context1"), cut = by_step("context2");
  int losses = 0, validation = 0;
  for (const auto& [step, values] : one) {
    SCOPED_TRACE("step " + step);
    ASSERT_TRUE(cut.contains(step));
    for (const char* key : {"loss", "grad_norm", "validation_loss"}) {
      if (!values.contains(key)) continue;
      EXPECT_NEAR(values[key].get<double>(), cut.at(step)[key].get<double>(), 1e-9 * values[key].get<double>()) << key;
      ++(std::string(key) == "loss" ? losses : validation);
    }
    if (values.contains("tokens")) {
      EXPECT_EQ(values["tokens"], cut.at(step)["tokens"]);
    }
  }
  EXPECT_EQ(losses, 8);
  EXPECT_GE(validation, 2);
}

TEST_F(TrainCommand, KilledRunGoesOnFromItsNewestCheckpoint) {
  ASSERT_EQ(train("calm", 4, "--set run.steps=40").code, 0);
  ASSERT_GT(
      kill_program_when(arguments("killed", "--set run.steps=40"), 4, path("killed/metrics.jsonl"), "\"step\":9,"), 0);
  const ProgramResult resumed = train("killed", 4, "--set run.steps=40");
  ASSERT_EQ(resumed.code, 0) << resumed.output;
  EXPECT_NE(resumed.output.find("resumed from"), std::string::npos) << resumed.output;
  expect_equal_checkpoints(checkpoint("calm", 40), checkpoint("killed", 40));
  EXPECT_EQ(curve("killed"), curve("calm"));
}

// Losses as numbers, by step.
std::map<int64_t, double> losses(const std::string& metrics) {
  std::map<int64_t, double> losses;
  std::ifstream file(metrics);
  for (std::string line; std::getline(file, line);) {
    const nlohmann::json values = nlohmann::json::parse(line);
    if (values.contains("loss")) losses[values["step"]] = values["loss"];
  }
  return losses;
}

// Stopped in one layout and resumed in others: one curve.
TEST_F(TrainCommand, GoesOnInAnotherLayout) {
  const std::string f64 = "--set run.compute_dtype=F64 --set model.tie_word_embeddings=true ";
  ASSERT_EQ(train("one_layout", 1, f64 + "--set parallel.tp=1").code, 0);
  struct Leg {
    int ranks;
    const char* layout;
    int last_step;
  };
  for (const Leg& leg : {Leg{2, "tp=2", 2}, Leg{2, "pp=2 tp=1", 4}, Leg{4, "pp=2 tp=2", 6}, Leg{2, "pp=1 tp=1", 8}}) {
    std::string more = f64 + "--set run.steps=" + std::to_string(leg.last_step);
    std::istringstream fields(leg.layout);
    for (std::string field; fields >> field;) more += " --set parallel." + field;
    const ProgramResult result = train("many_layouts", leg.ranks, more);
    ASSERT_EQ(result.code, 0) << result.output;
  }
  const auto one = losses(path("one_layout/metrics.jsonl")), many = losses(path("many_layouts/metrics.jsonl"));
  ASSERT_EQ(one.size(), 8u);
  ASSERT_EQ(many.size(), 8u);
  for (const auto& [step, loss] : one) EXPECT_NEAR(many.at(step), loss, 1e-9 * loss) << step;
}

TEST_F(TrainCommand, AccountsForEveryStep) {
  ASSERT_EQ(train("accounts", 4, "--set parallel.pp=2").code, 0);
  std::ifstream file(path("accounts/metrics.jsonl"));
  double host = 0, all = 0;
  for (std::string line; std::getline(file, line);) {
    const nlohmann::json values = nlohmann::json::parse(line);
    if (!values.contains("loss")) continue;
    double sum = 0;
    for (const char* part : {"compute_seconds", "bubble_seconds", "data_seconds", "optimizer_seconds"}) {
      EXPECT_GE(values[part].get<double>(), 0.0) << part;
      sum += values[part].get<double>();
    }
    for (const char* group : {"tp", "pp", "world"}) EXPECT_TRUE(values["communication"].contains(group)) << line;
    for (const auto& [group, use] : values["communication"].items()) sum += use["seconds"].get<double>();
    EXPECT_GT(values["communication"]["pp"]["send"], 0);
    host += std::abs(values["step_seconds"].get<double>() - sum);
    all += values["step_seconds"].get<double>();
  }
  EXPECT_LT(host, 0.02 * all);
}

TEST_F(TrainCommand, EvaluatesAndGeneratesFromAnyCheckpoint) {
  ASSERT_EQ(train("models", 4).code, 0);
  const ProgramResult eval = run_program("eval " + path("models") + " --samples 8 --json");
  ASSERT_EQ(eval.code, 0) << eval.output;
  const std::string last = eval.output.substr(eval.output.rfind('\n', eval.output.size() - 2) + 1);
  const double loss = nlohmann::json::parse(last)["sets"][0]["validation_loss"];
  double trained = 0;
  for (const std::string& line : curve("models")) {
    const nlohmann::json values = nlohmann::json::parse(line);
    if (values.contains("validation_loss")) trained = values["validation_loss"];
  }
  EXPECT_NEAR(loss, trained, 1e-5 * trained);  // one rank against four: the order of sums differs
  const std::string generate = "generate " + checkpoint("models", 8) + " --prompt 'the tile' --max-tokens 20 --json";
  const ProgramResult a = run_program(generate), b = run_program(generate), c = run_program(generate + " --seed 2");
  ASSERT_EQ(a.code, 0) << a.output;
  EXPECT_EQ(a.output, b.output);
  EXPECT_NE(a.output, c.output);
  EXPECT_EQ(nlohmann::json::parse(a.output)["text"].get<std::string>().rfind("the tile", 0), 0u);
  expect_failure(run_program("generate " + path("nowhere")), 4, {"nowhere", "does not exist"});
  const ProgramResult cut =
      run_program("generate " + path("models") + " --max-tokens 1 --prompt " + std::string(40, 'x'));
  EXPECT_EQ(cut.code, 0) << cut.output;
  EXPECT_NE(cut.output.find("the prompt has 40 tokens, and the model sees the last 32 alone"), std::string::npos)
      << cut.output;
}

TEST_F(TrainCommand, AnotherTokenizerThanTheRunsIsRefused) {
  ASSERT_EQ(train("spoken", 0, "--set parallel.tp=1 --set run.steps=2").code, 0);
  ASSERT_EQ(
      run_program("tokenizer train --input " + path("corpus") + " --vocab-size 270 --output " + path("other.json"))
          .code,
      0);
  const std::initializer_list<std::string> words = {"other.json: is not the tokenizer that the run was trained with"};
  expect_failure(run_program("generate " + path("spoken") + " --tokenizer " + path("other.json")), 3, words);
  expect_failure(run_program("eval " + path("spoken") + " --set data.tokenizer=" + path("other.json") +
                             " --set model.vocab_size=270"),
                 3, words);
}

TEST_F(TrainCommand, SaysWhatDoesNothing) {
  const ProgramResult result =
      train("idle", 0, "--set parallel.tp=1 --set run.steps=1 --set parallel.context_slack=0.5");
  EXPECT_EQ(result.code, 0) << result.output;
  EXPECT_NE(result.output.find("warning: parallel.context_slack = 0.5 does nothing: parallel.cp = 1"),
            std::string::npos)
      << result.output;
  expect_failure(train("x", 0, "--set parallel.tp=1 --set data.validation[0].weight=-5"), 2,
                 {"data.validation[0].weight"});
  expect_failure(train("x", 0, "--set parallel.tp=1 --set model.max_position_embeddings=7"), 2,
                 {"model.max_position_embeddings = 7", "data.sequence_length = 32"});
}

TEST_F(TrainCommand, SaysWhatIsWrongWithTheConfig) {
  std::ofstream(root_ / "typo.textproto") << "run { steps: 1 }\nmodel {\n  hiden_size: 64\n}\n";
  expect_failure(run_program("train " + path("typo.textproto")), 2, {"typo.textproto:3", "hiden_size", "hidden_size"});
  expect_failure(train("x", 0, "--set model.hidden_sizes=3"), 2, {"hidden_sizes", "hidden_size"});
  expect_failure(train("x", 0, "--set run.steps=many"), 2, {"run.steps", "many"});
  expect_failure(train("x", 4, "--set parallel.tp=4"), 2, {"num_key_value_heads", "tp", "4"});
  expect_failure(train("x", 4, "--set data.global_batch_size=3"), 2, {"global_batch_size", "3", "2"});
  expect_failure(train("x", 3), 2, {"3", "2"});
  expect_failure(train("x", 0, "--set parallel.tp=1 --set parallel.pp=2"), 2, {"pp"});
  expect_failure(train("x", 0, "--set parallel.tp=1 --set run.compute_dtype=FP8"), 2, {"FP8"});
  EXPECT_FALSE(fs::exists(path("x"))) << "a refused run leaves nothing behind";
}

TEST_F(TrainCommand, SaysWhatIsWrongWithTheData) {
  fs::create_directories(root_ / "empty");
  expect_failure(run_program("data build --input " + path("empty") + " --tokenizer bytes --output " + path("no")), 3,
                 {"empty"});
  fs::create_directories(root_ / "latin1");
  std::ofstream(root_ / "latin1/a.txt") << "caf\xe9 au lait";
  expect_failure(run_program("data build --input " + path("latin1") + " --tokenizer bytes --output " + path("no")), 3,
                 {"a.txt", "UTF-8"});
  ASSERT_EQ(
      run_program("tokenizer train --input " + path("corpus") + " --vocab-size 300 --output " + path("other.json"))
          .code,
      0);
  expect_failure(train("y", 0, "--set parallel.tp=1 --set data.tokenizer=" + path("other.json")), 3, {"tokenizer"});
  fs::copy(root_ / "shards", root_ / "cut", fs::copy_options::recursive);
  for (const auto& entry : fs::directory_iterator(root_ / "cut/train"))
    fs::resize_file(entry.path(), fs::file_size(entry.path()) - 100);
  expect_failure(train("y", 0, "--set parallel.tp=1 --set data.train=" + path("cut/train")), 3, {"cut/train", "bytes"});
}

// Tokens outside the vocabulary, which one rank reads while the other waits for it in a sum.
TEST_F(TrainCommand, ARankThatFailsInsideACollectiveSectionTakesAllDown) {
  fs::copy(root_ / "shards", root_ / "spoilt", fs::copy_options::recursive);
  for (const auto& entry : fs::directory_iterator(root_ / "spoilt/train")) {
    const uint64_t size = fs::file_size(entry.path());
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(size / 2));
    file << std::string(size / 50, '\xff');
  }
  for (const char* layout : {"--set parallel.tp=1", "--set parallel.tp=2", "--set parallel.tp=1 --set parallel.pp=2"}) {
    const auto start = std::chrono::steady_clock::now();
    const ProgramResult result =
        train("spoilt_run", 2,
              std::string(layout) + " --set run.steps=500 --set data.train=" + path("spoilt/train") +
                  " --set checkpoint.every_steps=0");
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10)) << layout;
    expect_failure(result, 3, {"tessera: error: rank ", "spoilt/train", "outside the vocabulary"});
    const std::string mark = "tessera: error:";
    EXPECT_EQ(result.output.find(mark, result.output.find(mark) + 1), std::string::npos)
        << "one message for all ranks:\n"
        << result.output;
    fs::remove_all(root_ / "spoilt_run");
  }
}

TEST_F(TrainCommand, AScheduleFromAFileTrainsAsTheKindItHolds) {
  ASSERT_EQ(run_program("schedule --kind zb-h1 --stages 2 --microbatches 4 --save " + path("zb.txt")).code, 0);
  const std::string layout = "--set parallel.tp=1 --set parallel.pp=2 --set parallel.schedule=";
  ASSERT_EQ(train("by_kind", 2, layout + "zb-h1").code, 0);
  const ProgramResult by_file = train("by_file", 2, layout + "file:" + path("zb.txt"));
  ASSERT_EQ(by_file.code, 0) << by_file.output;
  EXPECT_EQ(curve("by_kind"), curve("by_file"));
  std::ofstream(root_ / "deadlock.txt") << "tessera schedule 1\nmicrobatches 4\nplacement 0 1\n"
                                           "rank 0: F0 B0 SF0 RB0\nrank 1: RF0@1 F0@1 B0@1 SB0@1\n";
  expect_failure(train("deadlock", 2, layout + "file:" + path("deadlock.txt")), 2,
                 {"bad schedule", "F0 B0 SF0 RB0", "^"});
  EXPECT_FALSE(fs::exists(path("deadlock")));
}

TEST_F(TrainCommand, ChangesOfTheModelAreRefusedOnResume) {
  ASSERT_EQ(train("fixed", 0, "--set parallel.tp=1 --set run.steps=2").code, 0);
  expect_failure(train("fixed", 0, "--set parallel.tp=1 --set optimizer.beta2=0.9"), 2,
                 {"optimizer.beta2", "0.95", "0.9"});
  EXPECT_EQ(train("fixed", 0, "--set parallel.tp=1 --set optimizer.beta2=0.9 --allow-change optimizer").code, 0);
}

TEST_F(TrainCommand, ADamagedNewestCheckpointIsPassedOver) {
  ASSERT_EQ(train("damaged", 0, "--set parallel.tp=1 --set run.steps=6").code, 0);
  const std::string shard = checkpoint("damaged", 6) + "/shard-00000.h5";
  std::fstream file(shard, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(fs::file_size(shard) / 2));
  file << std::string(16384, '\x55');  // more than the padding between tensors
  file.close();
  const ProgramResult resumed = train("damaged", 0, "--set parallel.tp=1");
  EXPECT_EQ(resumed.code, 0) << resumed.output;
  EXPECT_NE(resumed.output.find("warning"), std::string::npos) << resumed.output;
  EXPECT_NE(resumed.output.find("at step 4"), std::string::npos) << resumed.output;
}

}  // namespace
}  // namespace tessera::testing
