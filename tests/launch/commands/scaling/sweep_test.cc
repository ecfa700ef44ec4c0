// tessera scaling sweep to report through the command line: trunks and branches, killed and resumed, diverged runs
// kept.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

#include "scaling/record_file.h"
#include "scaling/training_record.pb.h"
#include "tests/support/program.h"
#include "tests/support/ranks.h"

namespace tessera::testing {
namespace {

namespace fs = std::filesystem;

class ScalingSweep : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (under_mpi()) return;
    root_ = fs::path(::testing::TempDir()) / ("scaling_sweep_" + std::to_string(getpid()));
    fs::create_directories(root_ / "corpus");
    const char* words[] = {"the", "tile", "of", "a", "mosaic", "fits", "every", "other", "one", "exactly"};
    unsigned state = 1;
    for (int d = 0; d < 60; ++d) {
      std::ofstream file(root_ / "corpus" / (std::to_string(d) + ".txt"));
      for (int i = 0; i < 300; ++i)
        file << words[(state = state * 1664525 + 1013904223) >> 16 & 7] << ' ' << words[d % 10] << ' ';
    }
    const ProgramResult built = run_program("data build --input " + path("corpus") + " --tokenizer bytes --output " +
                                            path("shards") + " --validation-fraction 0.1");
    ASSERT_EQ(built.code, 0) << built.output;
    std::ofstream(path("run.textproto")) << R"(
      run { seed: 5 threads: 1 }
      model { num_hidden_layers: 1 head_dim: 8 tie_word_embeddings: true parametrization: MUP mup_base_width: 16 }
      data { sequence_length: 32 global_batch_size: 4 micro_batch_size: 2 tokenizer: "bytes"
             train { path: ")" << path("shards/train")
                                         << R"(" } validation { path: ")" << path("shards/validation") << R"(" } }
      lr_schedule { kind: WSD learning_rate: 0.01 warmup_steps: 2 }
      checkpoint { every_steps: 10 }
      evaluation { every_steps: 10 samples: 8 }
      logging { measure_peak: false tensorboard: false gradient_noise_every_steps: 4 })";
  }
  static void TearDownTestSuite() {
    if (!under_mpi()) fs::remove_all(root_);
  }
  void SetUp() override {
    if (under_mpi()) GTEST_SKIP() << "starts processes itself";
  }

  static std::string path(const std::string& name) { return (root_ / name).string(); }
  // Writes a sweep of this name and gives the words that run it.
  static std::string sweep(const std::string& name, const std::string& ladders) {
    std::ofstream(path(name + ".textproto")) << fmt::format(R"(name: "{0}" dir: "{1}" base: "{2}" concurrent: 2
      size {{ name: "w16" set: "model.hidden_size=16" set: "model.num_attention_heads=2"
              set: "model.intermediate_size=48" }}
      size {{ name: "w32" set: "model.hidden_size=32" set: "model.num_attention_heads=4"
              set: "model.intermediate_size=96" }}
      {3})",
                                                            name, path(name), path("run.textproto"), ladders);
    return "scaling sweep " + path(name + ".textproto");
  }
  static nlohmann::json last_line(const std::string& output) {
    const size_t end = output.find_last_not_of('\n'), begin = output.rfind('\n', end);
    return nlohmann::json::parse(output.substr(begin == std::string::npos ? 0 : begin + 1));
  }
  static TrainingRecord record(const std::string& directory) {
    TrainingRecord found;
    read_record(path(directory), found);
    return found;
  }
  static void expect_equal_shards(const std::string& a, const std::string& b) {
    int files = 0;
    for (const auto& entry : fs::directory_iterator(a)) {
      const std::string name = entry.path().filename();
      if (!name.starts_with("shard-")) continue;
      ++files;
      EXPECT_EQ(read_whole(entry.path()), read_whole(b + "/" + name)) << name;
    }
    EXPECT_EQ(files, 2) << a;
  }
  static void expect_failure(const std::string& arguments, int code, const std::string& words) {
    const ProgramResult result = run_program(arguments);
    EXPECT_EQ(result.code, code) << result.output;
    EXPECT_NE(result.output.find(words), std::string::npos) << words << "\n" << result.output;
  }

  static fs::path root_;
};
fs::path ScalingSweep::root_;

// A branch is the run that it would have been alone, bit for bit; what is done is not done again; diverged runs stay.
TEST_F(ScalingSweep, BranchesEqualRunsOfTheirOwnAndNothingIsDoneTwice) {
  const std::string ladders = R"(
    ladder { trunk: true size: "w16" tokens: 5120 tokens: 10240 }
    ladder { size: "w16" variant: "alone" tokens: 10240 set: "lr_schedule.kind=WSD" }
    ladder { size: "w16" tokens: 5120 learning_rate: 1e30 })";
  const ProgramResult first = run_program(sweep("whole", ladders) + " --json");
  ASSERT_EQ(first.code, 0) << first.output;
  EXPECT_EQ(last_line(first.output)["finished"], 5) << "two parts of the trunk, two branches, one alone";
  EXPECT_EQ(last_line(first.output)["diverged"], 1);
  expect_equal_shards(path("whole/w16-d10.2k/checkpoints/step-00000080"),
                      path("whole/alone-w16-d10.2k/checkpoints/step-00000080"));

  const TrainingRecord branch = record("whole/w16-d10.2k"), alone = record("whole/alone-w16-d10.2k");
  EXPECT_EQ(branch.status(), TrainingRecord::FINISHED);
  EXPECT_EQ(branch.step(), 80);
  EXPECT_EQ(branch.curve().DebugString(), alone.curve().DebugString()) << "the trunk's part of it included";
  EXPECT_EQ(branch.flops().DebugString(), alone.flops().DebugString());
  EXPECT_EQ(branch.tokens(), alone.tokens());
  EXPECT_EQ(branch.gradient_noise().DebugString(), alone.gradient_noise().DebugString());
  EXPECT_TRUE(branch.has_gradient_noise());
  EXPECT_EQ(branch.validation_loss().rbegin()->loss(), alone.validation_loss().rbegin()->loss());
  EXPECT_EQ(record("whole/w16-d5.12k").step(), 40);
  const TrainingRecord diverged = record("whole/w16-lr1e+30-d5.12k");
  EXPECT_EQ(diverged.status(), TrainingRecord::DIVERGED);
  EXPECT_NE(diverged.reason().find("step 2: the gradient norm is"), std::string::npos) << diverged.reason();

  const auto written = fs::last_write_time(path("whole/w16-d10.2k/record.textproto"));
  const ProgramResult second = run_program(sweep("whole", ladders) + " --json");
  EXPECT_EQ(last_line(second.output), last_line(first.output));
  EXPECT_EQ(fs::last_write_time(path("whole/w16-d10.2k/record.textproto")), written);

  // Another config under the same name is refused.
  std::string other = ladders;
  other.replace(other.find("learning_rate: 1e30"), 19, "learning_rate: 1e30 set: \"optimizer.beta2=0.9\"");
  expect_failure(sweep("whole", other), 2, "w16-lr1e+30-d5.12k was begun with \"optimizer:   beta2: 0.95\"");
}

TEST_F(ScalingSweep, IsKilledAndGoesOn) {
  const std::string ladders = "ladder { trunk: true tokens: 25600 tokens: 51200 }";
  const ProgramResult whole = run_program(sweep("calm", ladders) + " --json");
  ASSERT_EQ(whole.code, 0) << whole.output;
  const std::string command = sweep("killed", ladders);
  ASSERT_NE(kill_program_when(command, 0, path("killed/trunks/w16/metrics.jsonl"), "\"step\":50,"), -1);
  EXPECT_FALSE(fs::exists(path("killed/w32-d51.2k/record.textproto"))) << "killed in the middle";
  // Once more by a signal, which ends the runs and says so.
  const ProgramResult stopped = disturb_program(command, 0, path("killed/trunks/w16/metrics.jsonl"), "\"step\":170,",
                                                [](int process) { ::kill(process, SIGTERM); });
  EXPECT_EQ(stopped.code, 75) << stopped.output;
  const ProgramResult resumed = run_program(command + " --json");
  ASSERT_EQ(resumed.code, 0) << resumed.output;
  EXPECT_EQ(last_line(resumed.output)["finished"], last_line(whole.output)["finished"]);
  for (const char* run : {"w16-d25.6k", "w16-d51.2k", "w32-d25.6k", "w32-d51.2k"}) {
    TrainingRecord a = record(std::string("calm/") + run), b = record(std::string("killed/") + run);
    for (TrainingRecord* one : {&a, &b}) {
      one->clear_seconds();
      one->clear_config_hash();  // of the directory, too
    }
    EXPECT_EQ(a.DebugString(), b.DebugString()) << run;
  }

  // What follows from such runs: four are too few for a law, which is said, and the page has what there is.
  expect_failure("scaling fit " + path("killed"), 3, "4 runs at different sizes and tokens for 5 constants");
  const ProgramResult power = run_program("scaling fit " + path("killed") + " --form power --json");
  EXPECT_EQ(power.code, 0) << power.output;
  EXPECT_LT(last_line(power.output)["exponent"], 0);
  const ProgramResult page = run_program("scaling report " + path("killed") + " --output " + path("page") + " --json");
  EXPECT_EQ(page.code, 0) << page.output;
  EXPECT_EQ(last_line(page.output)["missing"], (nlohmann::json{"IsoFLOP curves", "The law"}));
  const std::string html = read_whole(path("page/report.html"));
  EXPECT_NE(html.find("data:image/png;base64,"), std::string::npos);
  EXPECT_LT(html.find("The law"), html.find("Loss curves")) << "first what was asked for";
}

TEST_F(ScalingSweep, PrintsAndWritesAndStartsNothing) {
  const std::string command =
      sweep("dry", "ladder { trunk: true tokens: 5120 tokens: 10240 } ladder { flops: 1e9 seed: 2 }");
  const ProgramResult dry = run_program(command + " --dry-run --json");
  ASSERT_EQ(dry.code, 0) << dry.output;
  EXPECT_EQ(last_line(dry.output)["runs"].size(), 6u);
  EXPECT_EQ(last_line(dry.output)["trunks"], 2);
  EXPECT_FALSE(fs::exists(path("dry")));
  const ProgramResult nowhere = run_program(command + " --dry-run --set 'data.train[0].path=/nowhere/shards'");
  EXPECT_EQ(nowhere.code, 0) << nowhere.output;
  EXPECT_NE(nowhere.output.find("no data at /nowhere/shards: "), std::string::npos) << nowhere.output;
  EXPECT_NE(nowhere.output.find("./launch/documentation.sh"), std::string::npos) << nowhere.output;
  ASSERT_EQ(run_program(command + " --slurm").code, 0);
  const std::string script = read_whole(path("dry/sweep.sbatch"));
  for (const char* part : {"#SBATCH --array=0-3%2", "\"w16-d5.12k w16-d10.2k\"", "\"w32-s2-c1e+09\"", "--only"})
    EXPECT_NE(script.find(part), std::string::npos) << part << "\n" << script;
  EXPECT_FALSE(fs::exists(path("dry/w16-d5.12k")));
  // One entry of the array.
  const ProgramResult one = run_program(command + " --only w16-d5.12k --json");
  EXPECT_EQ(last_line(one.output)["finished"], 2) << one.output;
  EXPECT_FALSE(fs::exists(path("dry/w16-d10.2k/record.textproto")));
  expect_failure(command + " --only w16", 2, "the sweep has no such run");
  expect_failure(command + " --set model.hiden_size=3", 2, "hidden_size");
}

// The sweeps of configs/sweeps, on other data: docs/SCALING.md says what is fitted and what is predicted.
TEST_F(ScalingSweep, ExamplesArePlannedAsTheirPageSays) {
  const std::string sweeps = testing::source_dir() + "/configs/sweeps/";
  const auto replaced = [](std::string text, const std::string& from, const std::string& to) {
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return at == std::string::npos ? text : text.replace(at, from.size(), to);
  };
  std::string base = read_whole(sweeps + "demo_run.textproto");
  for (const char* split : {"train", "validation"})
    base = replaced(base, std::string("data/documentation/shards/") + split, path(std::string("shards/") + split));
  std::ofstream(path("demo_run.textproto")) << replaced(base, "data/documentation/tokenizer.json", "bytes");
  const auto flops = [&](const std::string& name) {
    std::ofstream(path(name)) << replaced(read_whole(sweeps + name), "configs/sweeps/demo_run.textproto",
                                          path("demo_run.textproto"));
    const ProgramResult dry =
        run_program("scaling sweep " + path(name) + " --dry-run --json --set model.vocab_size=1024");
    EXPECT_EQ(dry.code, 0) << dry.output;
    std::vector<double> sizes;
    if (dry.code != 0) return sizes;
    const nlohmann::json plan = last_line(dry.output);
    for (const nlohmann::json& run : plan["runs"]) sizes.push_back(run["flops"]);
    return sizes;
  };
  const std::vector<double> demo = flops("demo.textproto");  // ascending
  ASSERT_EQ(demo.size(), 25u);
  const auto beyond = std::ranges::find_if(demo, [](double size) { return size > 7.5e12; });
  EXPECT_EQ(demo.end() - beyond, 5);
  EXPECT_GT(demo.back(), 8 * *(beyond - 1));
  EXPECT_EQ(flops("mup_lr.textproto").size(), 44u);
}

TEST_F(ScalingSweep, ARunThatFailsIsNamed) {
  const std::string command = sweep("fails", "ladder { size: \"w16\" tokens: 5120 }");
  expect_failure(command + " --set run.dir=/proc/nowhere", 2, "run.dir");
  expect_failure(command + " --set data.train=/nowhere", 3, "w16-d5.12k: ended with exit code 3");
}

}  // namespace
}  // namespace tessera::testing
