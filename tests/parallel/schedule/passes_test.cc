#include "parallel/schedule/passes.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "parallel/schedule/generate.h"
#include "parallel/schedule/text.h"
#include "parallel/schedule/verify.h"
#include "tensor/check.h"

namespace tessera {
namespace {

TEST(SchedulePasses, ReceivesArePostedOneComputeAheadAndSendsRightAfter) {
  const PipelineSchedule schedule = insert_messages(compute_schedule({.ranks = 2, .microbatches = 3}));
  EXPECT_EQ(to_string(schedule.ranks[0]), "F0 SF0 RB0 F1 SF1 B0 W0 RB1 F2 SF2 B1 RB2 W1 B2 W2");
  EXPECT_EQ(to_string(schedule.ranks[1]),
            "RF0@1 F0@1 B0@1 SB0@1 RF1@1 W0@1 F1@1 B1@1 SB1@1 RF2@1 W1@1 F2@1 B2@1 SB2@1 W2@1");
  EXPECT_THROW(insert_messages(schedule), InternalError);
}

TEST(SchedulePasses, BlocksOfAStageCountAsOneComputeAction) {
  PipelineSchedule schedule{.microbatches = 1, .rank_of_stage = {0, 1}, .ranks = {}};
  schedule.ranks = {parse_schedule("F0:0-1 F0:1- B0:1- B0:0-1 W0"), parse_schedule("F0@1 B0@1:1- B0@1:0-1 W0@1")};
  schedule = insert_messages(schedule);
  EXPECT_EQ(to_string(schedule.ranks[0]), "F0:0-1 F0:1- SF0 RB0 B0:1- B0:0-1 W0");
  EXPECT_EQ(to_string(schedule.ranks[1]), "RF0@1 F0@1 B0@1:1- B0@1:0-1 SB0@1 W0@1");
}

TEST(SchedulePasses, StagesOnOneRankNeedNoMessage) {
  const PipelineSchedule schedule = insert_messages(
      {.microbatches = 1, .rank_of_stage = {0, 0}, .ranks = {parse_schedule("F0 F0@1 B0@1 W0@1 B0 W0")}});
  EXPECT_EQ(to_string(schedule.ranks[0]), "F0 F0@1 B0@1 W0@1 B0 W0");
}

TEST(SchedulePasses, AStageIsReducedWhenItsGradientsAreDone) {
  const PipelineSchedule compute = compute_schedule({.kind = ScheduleKind::Interleaved, .ranks = 2, .microbatches = 2});
  const PipelineSchedule schedule = append_step(compute);
  EXPECT_EQ(to_string(schedule.ranks[0]), "F0 F1 F0@2 F1@2 B0@2 W0@2 B1@2 W1@2 R@2 B0 W0 B1 W1 R N S");
  EXPECT_EQ(to_string(schedule.ranks[1]), "F0@1 F1@1 F0@3 B0@3 W0@3 F1@3 B1@3 W1@3 R@3 B0@1 W0@1 B1@1 W1@1 R@1 N S");
}

TEST(SchedulePasses, ForwardOnlyGoesGroupByGroup) {
  EXPECT_EQ(to_string(forward_only_schedule({0}, 2).ranks[0]), "F0 F1");
  const PipelineSchedule schedule = forward_only_schedule(loop_placement(2, 2), 3, 2);
  EXPECT_EQ(to_string(schedule.ranks[0]), "F0 SF0 RF0@2 F1 SF1 RF1@2 F0@2 SF0@2 F1@2 SF1@2 RF2@2 F2 SF2 F2@2 SF2@2");
  for (int p : {1, 2, 3, 5}) {
    for (int m : {1, 2, 7}) {
      for (int group : {1, 2, p}) {
        EXPECT_NO_THROW(verify(forward_only_schedule(v_placement(p), m, group)));
        EXPECT_NO_THROW(verify(forward_only_schedule(loop_placement(p, 3), m, group)));
      }
    }
  }
}

TEST(SchedulePasses, ForwardOnlyTakesTheSlotsThatTrainingHas) {
  const auto group = [](ScheduleKind kind, int ranks, int microbatches) {
    const PipelineSchedule training = generate({.kind = kind, .ranks = ranks, .microbatches = microbatches});
    return forward_only_group(training.rank_of_stage, verify(training).stages);
  };
  EXPECT_EQ(group(ScheduleKind::Interleaved, 4, 8), 4);
  EXPECT_EQ(group(ScheduleKind::ZbV, 2, 4), 2);
  EXPECT_EQ(group(ScheduleKind::OneForwardOneBackward, 1, 8), 1);
  // The last stage reads what the one before has on the same rank, which needs a slot for each of the group.
  EXPECT_EQ(forward_only_group(v_placement(2), {{.slots = 1}, {.slots = 2}, {.slots = 1}, {.slots = 1}}), 2);
  EXPECT_EQ(forward_only_group(v_placement(2), {{.slots = 1}, {.slots = 1}, {.slots = 1}, {.slots = 1}}), 1);
}

}  // namespace
}  // namespace tessera
