#include "parallel/schedule/blocks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "parallel/schedule/generate.h"
#include "parallel/schedule/text.h"
#include "parallel/schedule/verify.h"
#include "tensor/check.h"

namespace tessera {
namespace {

PipelineSchedule one_rank(const std::string& text, int microbatches) {
  return {.microbatches = microbatches, .rank_of_stage = {0}, .ranks = {parse_schedule(text)}};
}

TEST(ScheduleBlocks, RecomputedBlocksGoOneByOne) {
  const PipelineSchedule all = insert_recompute(one_rank("F0 B0 W0", 1), {{true, true, true}});
  EXPECT_EQ(to_string(all.ranks[0]), "F0 C0:2- B0:2- W0:2- C0:1-2 B0:1-2 W0:1-2 C0:0-1 B0:0-1 W0:0-1");
  EXPECT_EQ(verify(append_step(all)).stages[0].recompute_slots, 1);
  const PipelineSchedule some = insert_recompute(one_rank("F0 B0 W0", 1), {{false, false, true, false}});
  EXPECT_EQ(to_string(some.ranks[0]), "F0 B0:3- W0:3- C0:2-3 B0:2-3 W0:2-3 B0:0-2 W0:0-2");
  const PipelineSchedule later = insert_recompute(one_rank("F0 F1 B0 B1 W0 W1", 2), {{true, true}});
  EXPECT_EQ(to_string(later.ranks[0]), "F0 F1 C0:1- B0:1- C0:0-1 B0:0-1 C1:1- B1:1- C1:0-1 B1:0-1 W0 W1");
  EXPECT_EQ(verify(append_step(later)).stages[0].recompute_slots, 4);
  EXPECT_EQ(to_string(insert_recompute(one_rank("F0 B0 W0", 1), {{false, false}}).ranks[0]), "F0 B0 W0");
}

TEST(ScheduleBlocks, BucketsAreReducedDuringTheLastBackward) {
  const PipelineSchedule schedule = insert_reductions(one_rank("F0 B0 W0 F1 B1 W1", 2), {5}, 2);
  EXPECT_EQ(to_string(schedule.ranks[0]), "F0 B0 W0 F1 B1:3- W1:3- R:3- B1:1-3 W1:1-3 R:1-3 B1:0-1 W1:0-1 R:0-1");
  EXPECT_EQ(to_string(append_step(schedule).ranks[0]), to_string(schedule.ranks[0]) + " N S");
  // Put off, BACKWARD_WEIGHT alone goes bucket by bucket.
  EXPECT_EQ(to_string(insert_reductions(one_rank("F0 B0 F1 B1 W0 W1", 2), {5}, 2).ranks[0]),
            "F0 B0 F1 B1 W0 W1:3- R:3- W1:1-3 R:1-3 W1:0-1 R:0-1");
}

TEST(ScheduleBlocks, BucketsOfEachMicrobatchAreReducedAtOnce) {
  const auto reduced = [](const std::string& text, int microbatches) {
    return insert_reductions(one_rank(text, microbatches), {2}, 1, ReduceOf::EachMicrobatch);
  };
  const PipelineSchedule at_once = reduced("F0 B0 W0 F1 B1 W1", 2);
  EXPECT_EQ(to_string(at_once.ranks[0]),
            "F0 B0:1- W0:1- R:1- B0:0-1 W0:0-1 R:0-1 F1 B1:1- W1:1- R:1- B1:0-1 W1:0-1 R:0-1");
  EXPECT_EQ(verify(append_step(at_once)).unreduced[0], 1);
  EXPECT_EQ(to_string(reduced("F0 F1 B0 B1 W0 W1", 2).ranks[0]),
            "F0 F1 B0 B1 W0:1- R:1- W0:0-1 R:0-1 W1:1- R:1- W1:0-1 R:0-1");
  // Another rank waits for the gradient of stage 1's input.
  PipelineSchedule two{.microbatches = 1, .rank_of_stage = {0, 1}, .ranks = {}};
  two.ranks = {parse_schedule("F0 B0 W0"), parse_schedule("F0@1 B0@1 W0@1")};
  two = insert_reductions(two, {2, 2}, 1, ReduceOf::EachMicrobatch);
  EXPECT_EQ(to_string(two.ranks[0]), "F0 B0:1- W0:1- R:1- B0:0-1 W0:0-1 R:0-1");
  EXPECT_EQ(to_string(two.ranks[1]), "F0@1 B0@1 W0@1:1- R@1:1- W0@1:0-1 R@1:0-1");
}

TEST(ScheduleBlocks, WeightsAreGatheredOneBlockAhead) {
  const PipelineSchedule schedule = insert_gathers(one_rank("F0 B0 W0", 1), {3});
  EXPECT_EQ(to_string(schedule.ranks[0]),
            "G:0-1 G:1-2 F0:0-1 X:0-1 G:2- F0:1-2 X:1-2 F0:2- G:1-2 B0:2- X:2- G:0-1 B0:1-2 X:1-2 B0:0-1 X:0-1 W0");
  EXPECT_NO_THROW(verify(append_step(schedule)));
}

TEST(ScheduleBlocks, LongWaitsAreOffloaded) {
  const PipelineSchedule schedule = insert_offload(one_rank("F0 F1 F2 B0 W0 B1 W1 B2 W2", 3), 2);
  EXPECT_EQ(to_string(schedule.ranks[0]), "F0 O0 F1 O1 I0 F2 O2 B0 I1 W0 B1 I2 W1 B2 W2");
  EXPECT_EQ(verify(append_step(schedule)).stages[0].slots, 2);
  EXPECT_EQ(to_string(insert_offload(one_rank("F0 B0 W0", 1), 2).ranks[0]), "F0 B0 W0");
}

TEST(ScheduleBlocks, WrongNumbersAreRefused) {
  EXPECT_THROW(insert_recompute(one_rank("F0 B0 W0", 1), {}), InternalError);
  EXPECT_THROW(insert_reductions(one_rank("F0 B0 W0", 1), {2, 2}, 1), InternalError);
  EXPECT_THROW(insert_reductions(one_rank("F0 B0 W0", 1), {2}, 0), InternalError);
  EXPECT_THROW(insert_gathers(one_rank("F0 B0 W0", 1), {0}), InternalError);
  EXPECT_THROW(insert_offload(one_rank("F0 B0 W0", 1), 1), InternalError);
}

// Any combination of the passes on any kind of schedule gives lists that run.
TEST(ScheduleBlocks, RandomCombinationsVerify) {
  std::mt19937 random(21);
  const auto draw = [&](int from, int to) { return std::uniform_int_distribution<int>(from, to)(random); };
  for (int round = 0; round < 1500; ++round) {
    PipelineSchedule schedule = compute_schedule({.kind = static_cast<ScheduleKind>(draw(0, kScheduleKinds - 1)),
                                                  .ranks = draw(1, 6),
                                                  .microbatches = draw(1, 12)});
    const std::string before = to_string(schedule);
    std::vector<int> blocks;
    std::vector<std::vector<bool>> plan;
    for (int s = 0; s < schedule.stages(); ++s) {
      blocks.push_back(draw(1, 4));
      plan.emplace_back();
      for (int b = 0; b < blocks.back(); ++b) plan.back().push_back(draw(0, 1) == 1);
    }
    std::string passes;
    const auto maybe = [&](const char* what) {
      const bool chosen = draw(0, 1) == 1;
      if (chosen) passes += what;
      return chosen;
    };
    if (maybe(" recompute")) schedule = insert_recompute(std::move(schedule), plan);
    if (maybe(" reductions"))
      schedule = insert_reductions(std::move(schedule), blocks, draw(1, 3),
                                   maybe(" each") ? ReduceOf::EachMicrobatch : ReduceOf::LastMicrobatch);
    if (maybe(" gathers")) schedule = insert_gathers(std::move(schedule), blocks);
    if (maybe(" offload")) schedule = insert_offload(std::move(schedule), draw(2, 6));
    schedule = append_step(insert_messages(std::move(schedule)));
    EXPECT_NO_THROW(verify(schedule)) << passes << "\n" << before;
    EXPECT_EQ(parse_pipeline_schedule(to_string(schedule)), schedule);
  }
}

}  // namespace
}  // namespace tessera
