// A config's layout, and its schedule: a kind, a file, or a search.
#include "launch/config/run_layout.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "launch/proof/layout_proof.h"
#include "launch/run.pb.h"
#include "parallel/schedule/generate.h"
#include "parallel/schedule/text.h"
#include "parallel/schedule/verify.h"
#include "scaling/planning/schedule_choice.h"
#include "tests/launch/proof/planned_run.h"
#include "tests/launch/proof/small_pipeline.h"
#include "tests/support/ranks.h"

namespace tessera::testing {
namespace {

class RunLayout : public ::testing::Test {
 protected:
  void SetUp() override {
    if (under_mpi()) GTEST_SKIP() << "one process";
  }
  static std::string path(const std::string& name) {
    return ::testing::TempDir() + "run_layout_" + std::to_string(getpid()) + "_" + name;
  }
  static RunConfig make(const std::vector<std::string>& fields) { return config_of(ModelConfig::LLAMA, false, fields); }
  static PipelineSchedule schedule_of(const RunConfig& config) { return plan_layout(config).schedule; }
  // The error of a config with these fields.
  static std::string refusal(const std::vector<std::string>& fields) {
    try {
      make(fields);
    } catch (const UsageError& error) {
      return error.what();
    }
    ADD_FAILURE() << "no error";
    return "";
  }
  static void expect_words(const std::string& text, const std::vector<std::string>& words) {
    for (const std::string& word : words) EXPECT_NE(text.find(word), std::string::npos) << word << "\n" << text;
  }
  static std::string written(const std::string& name, const std::string& text) {
    std::ofstream(path(name)) << text;
    return "schedule=file:" + path(name);
  }
};

TEST_F(RunLayout, AFileTrainsBitForBitAsTheKindItHolds) {
  const std::vector<std::vector<std::string>> layouts = {
      {"pp=1"}, {"pp=2", "schedule=zb-h1"}, {"pp=2", "schedule=zb-v", "recompute=full"}, {"pp=2", "tp=2"}};
  for (const std::vector<std::string>& fields : layouts) {
    const RunConfig kind = make(fields);
    const PipelineSchedule whole = schedule_of(kind);
    write_schedule_file(path("whole.txt"), whole);
    PipelineSchedule bare = whole;  // as somebody may write it down: compute alone
    for (Schedule& list : bare.ranks) {
      std::erase_if(list, [](const Action& a) {
        return a.kind != ActionKind::Forward && a.kind != ActionKind::BackwardInput &&
               a.kind != ActionKind::BackwardWeight && a.kind != ActionKind::Recompute;
      });
    }
    write_schedule_file(path("bare.txt"), bare);
    const RunRecord expected = record_planned(kind, kSteps);
    for (const char* file : {"whole.txt", "bare.txt"}) {
      std::vector<std::string> with_file;
      for (const std::string& field : fields) {
        if (!field.starts_with("schedule=")) with_file.push_back(field);
      }
      with_file.push_back("schedule=file:" + path(file));
      const RunConfig config = make(with_file);
      EXPECT_EQ(schedule_of(config), whole) << file;
      const RunRecord record = record_planned(config, kSteps);
      const std::string what = fmt::format("{}, {}", file, fmt::join(fields, " "));
      EXPECT_EQ(record.losses, expected.losses) << what;
      EXPECT_EQ(record.norms, expected.norms) << what;
      EXPECT_TRUE(record.gradients == expected.gradients) << what;
      EXPECT_TRUE(record.state == expected.state) << what;
    }
  }
}

TEST_F(RunLayout, AFileIsReadOnceAndNeverAgain) {
  const std::string file = path("once.txt");
  write_schedule_file(file, plan_layout(make({"pp=2"})).schedule);
  const RunConfig config = make({"pp=2", "schedule=file:" + file});
  const Layout layout = plan_layout(config);
  std::filesystem::remove(file);
  EXPECT_EQ(record_run(config, layout, kSteps).losses, record_planned(make({"pp=2"}), kSteps).losses);
}

TEST_F(RunLayout, Stage1SumsBesideTheLastBackwardAndNoEarlier) {
  const PipelineSchedule schedule = schedule_of(make({"dp=2", "zero_stage=1"}));
  const Schedule& list = schedule.ranks[0];
  int reductions = 0;
  for (size_t i = 0; i < list.size(); ++i) {
    if (list[i].kind != ActionKind::Reduce) continue;
    ++reductions;
    ASSERT_GT(i, 0u);
    EXPECT_EQ(list[i - 1].kind, ActionKind::BackwardWeight);
    EXPECT_EQ(list[i - 1].blocks, list[i].blocks);
    EXPECT_EQ(list[i - 1].microbatch + 1, schedule.microbatches);
  }
  EXPECT_EQ(reductions, plan_layout(make({"dp=2"})).parts[0].blocks()) << "one a block";
  EXPECT_GT(reductions, 1);
  EXPECT_EQ(list.end()[-3].kind, ActionKind::Reduce) << "only the last one's time is left, before NORM and STEP";
  // The same bits as of one REDUCE behind all: as a file may have it.
  PipelineSchedule behind = schedule_of(make({"dp=2"}));
  write_schedule_file(path("behind.txt"), behind);
  const RunConfig file = make({"dp=2", "zero_stage=1", "schedule=file:" + path("behind.txt")});
  EXPECT_EQ(schedule_of(file), behind);
  const RunRecord beside = record_planned(make({"dp=2", "zero_stage=1"}), kSteps), after = record_planned(file, kSteps);
  EXPECT_EQ(beside.losses, after.losses);
  EXPECT_EQ(beside.norms, after.norms);
  EXPECT_TRUE(beside.gradients == after.gradients);
  EXPECT_TRUE(beside.state == after.state);
}

TEST_F(RunLayout, ASearchKeepsItsLimitAndComputesTheSame) {
  const RunConfig config = make({"pp=2", "schedule=search", "memory_limit=1", "times.backward_weight=0.5"});
  const PipelineSchedule schedule = schedule_of(config);
  EXPECT_EQ(verify(schedule).peak_bytes, (std::vector<int64_t>{1, 1}));
  const RunRecord found = record_planned(config, kSteps), other = record_planned(make({"pp=2"}), kSteps);
  EXPECT_EQ(found.losses, other.losses);
  EXPECT_TRUE(found.gradients == other.gradients);
  EXPECT_EQ(schedule_of(make({"pp=2", "schedule=search", "chunks=2"})).rank_of_stage, (std::vector<int>{0, 1, 1, 0}));
}

TEST_F(RunLayout, TimesPlaceTheWeightsOfZeroBubbleKinds) {
  const PipelineSchedule even = schedule_of(make({"pp=3", "schedule=zb-h2"}));
  EXPECT_EQ(even, schedule_of(make({"pp=3", "schedule=zb-h2", "times.forward=2,2,2", "times.backward_input=2",
                                    "times.backward_weight=2"})));
  EXPECT_NE(even, schedule_of(make({"pp=3", "schedule=zb-h2", "times.backward_weight=0.1"})));
}

TEST_F(RunLayout, AFileThatDoesNotFitIsRefusedWithWhatWould) {
  const std::string file = written("two.txt", to_string(generate({.ranks = 2, .microbatches = 4})));
  expect_words(refusal({"pp=2", file}), {"the file has 4 microbatches", "= 8; choose data.global_batch_size = 4"});
  expect_words(refusal({"pp=4", "dp=2", file}),
               {"the file is for 2 pipeline ranks, but parallel.pp = 4; choose pp = 2"});
  expect_words(refusal({"pp=2", "dp=2", "chunks=2", file}),
               {"the file has 2 stages on 2 ranks, but parallel.chunks = 2; leave chunks out"});
  expect_words(refusal({"pp=2", "dp=2", "microbatch_group=2", file}), {"microbatch_group is interleaved's"});
  EXPECT_NO_THROW(make({"pp=2", "dp=2", file}));
  // Nine blocks in stages of four and five, and in stages of eight and one.
  write_schedule_file(path("blocks.txt"), schedule_of(make({"pp=2", "blocks_per_stage=4,5", "recompute=full"})));
  const std::string blocks = "schedule=file:" + path("blocks.txt");
  EXPECT_NO_THROW(make({"pp=2", "blocks_per_stage=4,5", blocks}));
  expect_words(refusal({"pp=2", "blocks_per_stage=8,1", blocks}),
               {"names blocks that stage 1 does not have: it has 1; set parallel.blocks_per_stage"});
  expect_words(refusal({"pp=2", "schedule=file:" + path("nowhere.txt")}), {path("nowhere.txt")});
  expect_words(refusal({"pp=2", written("odd.txt", "tessera schedule 1\nmicrobatches 1\nplacement 0 1\nrank 0: Q0\n")}),
               {path("odd.txt"), "Q0"});
}

TEST_F(RunLayout, ADeadlockAndTooMuchMemoryAreShownByAnArrow) {
  // Rank 0 wants the gradient before it sends what makes it.
  const std::string deadlock = written("deadlock.txt",
                                       "tessera schedule 1\nmicrobatches 1\nplacement 0 1\n"
                                       "rank 0: F0 B0 SF0 RB0 W0 R N S\n"
                                       "rank 1: RF0@1 F0@1 B0@1 SB0@1 W0@1 R@1 N S\n");
  expect_words(refusal({"pp=2", "dp=8", deadlock}), {"bad schedule: rank 0", "F0 B0 SF0 RB0", "^"});
  expect_words(refusal({"pp=2", "schedule=gpipe", "memory_limit=3"}), {"bad schedule: rank ", "F3", "limit", "^"});
  EXPECT_NO_THROW(make({"pp=2", "schedule=gpipe", "memory_limit=8"}));
  EXPECT_NO_THROW(make({"pp=2", "memory_limit=2"}));
  expect_words(refusal({"pp=2", "schedule=search", "memory_limit=0.5"}), {"rank"});
}

TEST_F(RunLayout, TimesAreChecked) {
  expect_words(refusal({"pp=2", "schedule=search", "times.forward=1;2"}),
               {"parallel.times.forward = 1;2: must be times with commas between"});
  expect_words(refusal({"pp=2", "schedule=search", "times.forward=1,2,3"}),
               {"parallel.times.forward has 3 times: give one (of a rank, which its stages share) or 2"});
  expect_words(refusal({"pp=2", "schedule=search", "times.latency=-1"}), {"parallel.times.latency = -1"});
}

}  // namespace
}  // namespace tessera::testing
