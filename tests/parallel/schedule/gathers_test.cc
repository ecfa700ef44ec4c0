#include "parallel/schedule/gathers.h"

#include <gtest/gtest.h>

#include "parallel/schedule/text.h"

namespace tessera {
namespace {

TEST(ScheduleGathers, FeedForwardUntilTheirRelease) {
  const Schedule list =
      parse_schedule("G:0-1 F0:0-1 X:0-1 G:1- G:0-1 B0:1- X:1- B0:0-1 F1:0-1 X:0-1 G:1- F1@1 X:1- F1");
  EXPECT_EQ(gather_for(list, 0), GatherFor::Forward);
  EXPECT_EQ(gather_for(list, 3), GatherFor::Backward);
  EXPECT_EQ(gather_for(list, 4), GatherFor::Forward);    // kept for the next microbatch
  EXPECT_EQ(gather_for(list, 10), GatherFor::Backward);  // another stage's, and after the RELEASE
}

TEST(ScheduleGathers, TheLastReduceOfBlocks) {
  const Schedule list = parse_schedule("R:1- R:0-1 R:0- R@1:0-1 R@1:1-");
  EXPECT_EQ(reduce_turn(list, 0), ReduceTurn::Earlier);
  EXPECT_EQ(reduce_turn(list, 1), ReduceTurn::Earlier);
  EXPECT_EQ(reduce_turn(list, 2), ReduceTurn::Last);
  EXPECT_EQ(reduce_turn(list, 3), ReduceTurn::Last);
}

}  // namespace
}  // namespace tessera
