#include "scaling/sweep.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "scaling/sweep.pb.h"
#include "scaling/sweep_tasks.h"
#include "scaling/text_file.h"
#include "tensor/check.h"

namespace tessera {
namespace {

// "width=W" has 100 W parameters, half of them embeddings; steps of 1000 tokens, or "batch".
DescribedRun describe(const std::vector<std::string>& overrides) {
  DescribedRun run;
  run.batch_tokens = 1000;
  run.warmup_steps = 2;
  for (const std::string& text : overrides) {
    const double value = std::atof(text.substr(text.find('=') + 1).c_str());
    if (text.starts_with("width=")) run.parameters = 100 * value;
    if (text.starts_with("data.global_batch_size=")) run.batch_tokens = static_cast<int64_t>(10 * value);
    if (text == "lr_schedule.kind=WSD") run.wsd = true;
  }
  run.non_embedding = run.parameters / 2;
  run.flops_per_step = 6 * run.parameters * static_cast<double>(run.batch_tokens);
  return run;
}

SweepPlan plan(const std::string& ladders, const std::string& more = "") {
  SweepConfig config;
  const std::string text =
      R"(name: "s" base: "b" size { name: "a" set: "width=10" } size { name: "b" set: "width=20" } )";
  EXPECT_EQ(parse_message(text + ladders + more, "sweep", config), "");
  return plan_sweep(config, describe);
}

std::string message_of(const std::string& ladders, const std::string& more = "") {
  try {
    plan(ladders, more);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "nothing was thrown";
}

void expect_has(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << text << "\nlacks " << part;
}

const PlannedRun& run_of(const SweepPlan& plan, const std::string& name) {
  const auto found =
      std::find_if(plan.runs.begin(), plan.runs.end(), [&](const auto& run) { return run.name == name; });
  if (found == plan.runs.end()) throw std::runtime_error("no run " + name);
  return *found;
}

TEST(Sweep, MakesTheProductOfALadder) {
  const SweepPlan found = plan("ladder { tokens: 20e3 tokens: 40e3 seed: 1 seed: 2 learning_rate: 0.5 }");
  ASSERT_EQ(found.runs.size(), 8u);
  const PlannedRun& run = run_of(found, "b-lr0.5-s2-d40k");
  EXPECT_EQ(run.directory, "runs/s/b-lr0.5-s2-d40k");
  EXPECT_EQ(run.steps, 40);
  EXPECT_EQ(run.tokens, 40000);
  EXPECT_DOUBLE_EQ(run.flops, 6.0 * 2000 * 40000);
  for (const char* needed : {"width=20", "run.seed=2", "lr_schedule.learning_rate=0.5", "run.steps=40"})
    EXPECT_NE(std::find(run.overrides.begin(), run.overrides.end(), needed), run.overrides.end()) << needed;
  EXPECT_LE(found.runs.front().flops, found.runs.back().flops);
}

TEST(Sweep, BudgetsAreRatiosAndIsoFlops) {
  const SweepPlan total = plan("ladder { size: \"a\" tokens_per_parameter: 20 flops: 6e8 }");
  EXPECT_EQ(run_of(total, "a-r20").tokens, 20000);
  EXPECT_EQ(run_of(total, "a-c6e+08").tokens, 100000);
  const SweepPlan without = plan("ladder { size: \"a\" tokens_per_parameter: 20 flops: 6e8 }", "count: NON_EMBEDDING");
  EXPECT_EQ(run_of(without, "a-r20").tokens, 10000);
  EXPECT_EQ(run_of(without, "a-c6e+08").tokens, 200000);
}

TEST(Sweep, RunsThatLaddersShareAreMadeOnce) {
  EXPECT_EQ(plan("ladder { tokens: 20e3 } ladder { size: \"a\" tokens: 20e3 tokens: 30e3 }").runs.size(), 3u);
}

TEST(Sweep, OneTrunkServesAllBudgets) {
  const SweepPlan found = plan("ladder { trunk: true tokens: 20e3 tokens: 50e3 tokens: 100e3 }");
  ASSERT_EQ(found.trunks.size(), 2u);
  EXPECT_EQ(found.trunks[0].stops, (std::vector<int64_t>{16, 40, 80}));
  EXPECT_EQ(found.trunks[0].directory, "runs/s/trunks/a");
  const PlannedRun& run = run_of(found, "a-d50k");
  EXPECT_EQ(run.from, 40);
  EXPECT_DOUBLE_EQ(run.flops, 6.0 * 1000 * 50000);
  EXPECT_DOUBLE_EQ(run.flops_to_do(), 6.0 * 1000 * 10000);
  // The trunks' 80 steps and the decays' 4 + 10 + 20, of steps of 1000 tokens, at 1000 and 2000 parameters.
  EXPECT_DOUBLE_EQ(found.flops_to_do(), 6.0 * 3000 * 114000);
}

TEST(Sweep, TasksWaitForTheirTrunk) {
  const SweepPlan found =
      plan("ladder { size: \"a\" trunk: true tokens: 20e3 tokens: 50e3 } ladder { size: \"b\" tokens: 9e3 }");
  const auto text = [](const DescribedRun&, int64_t steps) { return "steps " + std::to_string(steps); };
  const std::vector<SweepTask> tasks = tasks_of(found, text);
  std::vector<std::string> names;
  for (const SweepTask& task : tasks) names.push_back(task.name);
  EXPECT_EQ(names, (std::vector<std::string>{"trunk a to 16", "a-d20k", "trunk a to 40", "a-d50k", "b-d9k"}));
  EXPECT_EQ(tasks[0].after, -1);
  EXPECT_EQ(tasks[1].after, 0);
  EXPECT_EQ(tasks[2].after, 0) << "of the trunk, not of the branch between";
  EXPECT_EQ(tasks[3].after, 2);
  EXPECT_EQ(tasks[3].first_step, 40);
  EXPECT_EQ(tasks[2].config, "steps 40");
  EXPECT_EQ(tasks[4].after, -1);

  const std::vector<SweepTask> some = only(tasks, {"a-d50k"});
  ASSERT_EQ(some.size(), 3u) << "and both parts of the trunk";
  EXPECT_EQ(some[2].after, 1);
  EXPECT_THROW(only(tasks, {"c"}), UsageError);
  EXPECT_EQ(groups_of(found), (std::vector<std::vector<std::string>>{{"a-d20k", "a-d50k"}, {"b-d9k"}}));
}

TEST(Sweep, SaysWhatIsWrong) {
  expect_has(message_of(""), "no ladder");
  expect_has(message_of("ladder { size: \"c\" tokens: 1 }"), "ladder.size = c: there is no such size; there are a, b");
  expect_has(message_of("ladder { }"), "no budget");
  expect_has(message_of("ladder { tokens: -1 }"), "must be positive");
  expect_has(message_of("ladder { trunk: true tokens: 2000 }"),
             "a-d2k: 2 steps of 1000 tokens are fewer than 2 of warm-up");
  expect_has(message_of("ladder { tokens: 9e3 }", "size { name: \"a\" }"), "size.name = a: twice");
  expect_has(message_of("ladder { tokens: 9e3 }", "decay_fraction: 1.5"), "decay_fraction = 1.5");
  expect_has(message_of("ladder { tokens: 9e3 }", "concurrent: 0"), "concurrent = 0");
}

TEST(Sweep, ShortNumbers) {
  EXPECT_EQ(short_number(350), "350");
  EXPECT_EQ(short_number(1310000), "1.31M");
  EXPECT_EQ(short_number(999900), "1M");
  EXPECT_EQ(short_number(6.4e9), "6.4G");
}

}  // namespace
}  // namespace tessera
