#include "parallel/schedule/gathers.h"

#include <gtest/gtest.h>

#include "parallel/schedule/text.h"

namespace tessera {
namespace {

TEST(ScheduleGathers, FeedForwardUntilTheirRelease) {
  const Schedule list =
      parse_schedule("G:0-1 F0:0-1 X:0-1 G:1- G:0-1 B0:1- X:1- B0:0-1 F1:0-1 X:0-1 G:1- F1@1 X:1- F1");
  EXPECT_TRUE(feeds_forward(list, 0));
  EXPECT_FALSE(feeds_forward(list, 3));
  EXPECT_TRUE(feeds_forward(list, 4));    // kept for the next microbatch
  EXPECT_FALSE(feeds_forward(list, 10));  // another stage's, and after the RELEASE
}

TEST(ScheduleGathers, TheLastReduceOfBlocks) {
  const Schedule list = parse_schedule("R:1- R:0-1 R:0- R@1:0-1 R@1:1-");
  EXPECT_FALSE(reduces_last(list, 0));
  EXPECT_FALSE(reduces_last(list, 1));
  EXPECT_TRUE(reduces_last(list, 2));
  EXPECT_TRUE(reduces_last(list, 3));
}

}  // namespace
}  // namespace tessera
