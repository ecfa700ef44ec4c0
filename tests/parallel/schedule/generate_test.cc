#include "parallel/schedule/generate.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <random>

#include "parallel/schedule/text.h"
#include "parallel/schedule/verify.h"
#include "tensor/check.h"

namespace tessera {
namespace {

std::string complaint(const ScheduleSpec& spec) {
  try {
    generate(spec);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "fine";
}

TEST(ScheduleGenerate, KindsHaveNames) {
  for (const char* text : {"gpipe", "1f1b", "interleaved", "zb-h1", "zb-h2", "zb-v", "dualpipe-v", "v-half", "v-min"}) {
    EXPECT_STREQ(name(parse_schedule_kind(text)), text);
  }
  try {
    parse_schedule_kind("zb-h3");
    ADD_FAILURE();
  } catch (const UsageError& error) {
    EXPECT_STREQ(error.what(),
                 "schedule: there is no kind 'zb-h3'; there are gpipe, 1f1b, interleaved, zb-h1, zb-h2, zb-v, "
                 "dualpipe-v, v-half, v-min");
  }
}

TEST(ScheduleGenerate, OneRankAccumulates) {
  EXPECT_EQ(to_string(generate({.microbatches = 2}).ranks[0]), "F0 B0 W0 F1 B1 W1 R N S");
}

TEST(ScheduleGenerate, NumbersThatMakeNoScheduleAreRefused) {
  EXPECT_EQ(complaint({.ranks = 0}), "schedule: 0 stages: there must be 1 or more");
  EXPECT_EQ(complaint({.microbatches = 0}), "schedule: 0 microbatches: there must be 1 or more");
  EXPECT_EQ(complaint({.chunks = 2}), "schedule: 2 chunks: 1f1b has 1 a rank; interleaved has any number");
  EXPECT_EQ(complaint({.group = 2}), "schedule: group of 2: 1f1b has no microbatch groups; interleaved has them");
  EXPECT_EQ(complaint({.kind = ScheduleKind::ZbV, .chunks = 1}),
            "schedule: 1 chunks: zb-v has 2 a rank; interleaved has any number");
  EXPECT_EQ(complaint({.kind = ScheduleKind::ZbH1, .ranks = 2, .costs = {.stages = {{}}}}),
            "schedule: costs of 1 stages, but there are 2");
  EXPECT_EQ(complaint({.kind = ScheduleKind::VMin, .ranks = 2, .chunks = 2}), "fine");
  EXPECT_EQ(complaint({.kind = ScheduleKind::Interleaved, .ranks = 2, .microbatches = 3, .chunks = 3, .group = 2}),
            "fine");
}

// Thousands of shapes, with costs drawn for every stage: whatever is generated keeps the rules.
TEST(ScheduleGenerate, RandomSchedulesVerify) {
  std::mt19937 random(11);
  const auto draw = [&](int from, int to) { return std::uniform_int_distribution<int>(from, to)(random); };
  const auto time = [&] { return std::uniform_real_distribution<double>(0.2, 3)(random); };
  for (int round = 0; round < 4000; ++round) {
    ScheduleSpec spec{.kind = static_cast<ScheduleKind>(draw(0, kScheduleKinds - 1)),
                      .ranks = draw(1, 9),
                      .microbatches = draw(1, 20)};
    if (spec.kind == ScheduleKind::Interleaved) {
      spec.chunks = draw(1, 4);
      spec.group = draw(1, 12);
    }
    if (draw(0, 1) == 1) {
      spec.costs.latency = draw(0, 1) * time();
      const int chunks = spec.chunks == 0 ? own_chunks(spec.kind) : spec.chunks;
      for (int s = 0; s < spec.ranks * chunks; ++s) spec.costs.stages.push_back({time(), time(), time()});
    }
    SCOPED_TRACE(fmt::format("{} of {} ranks, {} microbatches, {} chunks, groups of {}", name(spec.kind), spec.ranks,
                             spec.microbatches, spec.chunks, spec.group));
    const PipelineSchedule schedule = generate(spec);
    EXPECT_NO_THROW(verify(schedule));
    EXPECT_EQ(parse_pipeline_schedule(to_string(schedule)), schedule);
  }
}

// Two neighbours in a rank's list, exchanged: refused, or again a schedule that runs. Both happen, and dependencies
// within the rank are never broken unnoticed.
TEST(ScheduleGenerate, PlantedWrongOrdersAreRefused) {
  std::mt19937 random(12);
  int refused = 0, right = 0;
  for (int round = 0; round < 4000; ++round) {
    const auto draw = [&](int from, int to) { return std::uniform_int_distribution<int>(from, to)(random); };
    PipelineSchedule schedule = generate({.kind = static_cast<ScheduleKind>(draw(0, kScheduleKinds - 1)),
                                          .ranks = draw(2, 5),
                                          .microbatches = draw(2, 8)});
    Schedule& list = schedule.ranks[draw(0, static_cast<int>(schedule.ranks.size()) - 1)];
    const int at = draw(0, static_cast<int>(list.size()) - 2);
    std::swap(list[at], list[at + 1]);
    const Action &first = list[at], &second = list[at + 1];  // they were the other way round
    const bool same_microbatch = first.stage == second.stage && first.microbatch == second.microbatch;
    const bool same_kind = first.kind == second.kind && first.stage == second.stage;
    const bool tail = second.kind >= ActionKind::Reduce && first.kind > second.kind && first.kind >= ActionKind::Norm;
    // SEND_BACKWARD and BACKWARD_WEIGHT of a microbatch both follow BACKWARD_INPUT and do not need each other.
    const bool independent = first.kind == ActionKind::BackwardWeight && second.kind == ActionKind::SendBackward;
    const bool broken = (same_microbatch && has_microbatch(first.kind) && !independent) ||
                        (same_kind && has_microbatch(first.kind)) || tail;
    bool refuses = false;
    try {
      verify(schedule);
    } catch (const UsageError& error) {
      refuses = true;
      EXPECT_NE(std::string(error.what()).find('^'), std::string::npos);
    }
    if (broken) {
      EXPECT_TRUE(refuses) << to_string(first) << " " << to_string(second) << "\n" << to_string(schedule);
    }
    (refuses ? refused : right)++;
  }
  EXPECT_GT(refused, 500);
  EXPECT_GT(right, 500);
}

}  // namespace
}  // namespace tessera
