#include "parallel/schedule/schedule.h"

#include <gtest/gtest.h>

#include "parallel/schedule/generate.h"
#include "parallel/schedule/text.h"
#include "parallel/schedule/verify.h"
#include "tensor/check.h"

namespace tessera {
namespace {

// One stage and several microbatches are gradient accumulation.
TEST(Schedule, OneStageRunsMicrobatchesOneByOne) {
  const auto alone = [](int microbatches) { return generate({.ranks = 1, .microbatches = microbatches}); };
  EXPECT_EQ(to_string(alone(1).ranks[0]), "F0 B0 W0 R N S");
  EXPECT_EQ(to_string(alone(3).ranks[0]), "F0 B0 W0 F1 B1 W1 F2 B2 W2 R N S");
  for (int m : {1, 2, 7, 64}) EXPECT_EQ(verify(alone(m)).stages[0].slots, 1);
  EXPECT_THROW(alone(0), UsageError);
}

TEST(Schedule, StagesArePlacedInALoopOrInAV) {
  EXPECT_EQ(loop_placement(3, 1), (std::vector<int>{0, 1, 2}));
  EXPECT_EQ(loop_placement(2, 3), (std::vector<int>{0, 1, 0, 1, 0, 1}));
  EXPECT_EQ(v_placement(3), (std::vector<int>{0, 1, 2, 2, 1, 0}));
  EXPECT_EQ(v_placement(1), (std::vector<int>{0, 0}));
}

TEST(Schedule, MessagesGoBetweenStagesOnDifferentRanks) {
  const PipelineSchedule v{.microbatches = 1, .rank_of_stage = v_placement(2), .ranks = {}};
  for (const auto& [stage, receives, sends] :
       {std::tuple{0, false, true}, {1, true, false}, {2, false, true}, {3, true, false}}) {
    EXPECT_EQ(v.receives(stage), receives) << stage;
    EXPECT_EQ(v.sends(stage), sends) << stage;
  }
}

TEST(Schedule, KindsHaveDifferentNames) {
  for (int a = 0; a < kActionKinds; ++a) {
    for (int b = 0; b < a; ++b) EXPECT_STRNE(name(static_cast<ActionKind>(a)), name(static_cast<ActionKind>(b)));
  }
  EXPECT_TRUE(is_compute(ActionKind::BackwardWeight));
  EXPECT_FALSE(is_compute(ActionKind::SendForward));
  EXPECT_TRUE(is_message(ActionKind::ReceiveBackward));
  EXPECT_FALSE(is_message(ActionKind::Recompute));
  EXPECT_TRUE(has_microbatch(ActionKind::Fetch));
  EXPECT_FALSE(has_microbatch(ActionKind::Gather));
}

}  // namespace
}  // namespace tessera
