#include "parallel/schedule/zero_bubble.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "parallel/schedule/passes.h"
#include "parallel/schedule/text.h"
#include "parallel/schedule/verify.h"

namespace tessera {
namespace {

ScheduleFigures verified(const PipelineSchedule& compute) { return verify(append_step(insert_messages(compute))); }

TEST(ScheduleZeroBubble, H1DefersWeightsByTheRank) {
  const PipelineSchedule schedule = zb_h1_schedule(3, 5, {});
  EXPECT_EQ(to_string(schedule.ranks[0]), "F0 F1 F2 B0 W0 F3 B1 W1 F4 B2 W2 B3 W3 B4 W4");
  EXPECT_EQ(to_string(schedule.ranks[2]), "F0@2 B0@2 F1@2 B1@2 F2@2 B2@2 W0@2 F3@2 B3@2 W1@2 F4@2 B4@2 W2@2 W3@2 W4@2");
}

TEST(ScheduleZeroBubble, H1NeedsNoMoreThan1F1BAndH2LessThanTwice) {
  for (int p = 1; p <= 10; ++p) {
    for (int m : {1, 2, p, 2 * p, 3 * p + 1}) {
      for (const ScheduleCosts& costs :
           {ScheduleCosts{}, ScheduleCosts{.stages = std::vector<StageCosts>(p, {2, 3, 1}), .latency = 0.5}}) {
        for (int64_t peak : verified(zb_h1_schedule(p, m, costs)).peak_bytes) EXPECT_LE(peak, std::min(m, p));
        for (int64_t peak : verified(zb_h2_schedule(p, m, costs)).peak_bytes) EXPECT_LE(peak, std::min(m, 2 * p - 1));
      }
    }
  }
}

TEST(ScheduleZeroBubble, TheOrderOfForwardAndBackwardIsThatOf1F1B) {
  const PipelineSchedule order = forward_backward_order(3, 4, 1);
  EXPECT_EQ(to_string(order.ranks[0]), "F0 F1 F2 B0 F3 B1 B2 B3");
  EXPECT_EQ(to_string(order.ranks[2]), "F0@2 B0@2 F1@2 B1@2 F2@2 B2@2 F3@2 B3@2");
  EXPECT_EQ(to_string(forward_backward_order(3, 6, 2).ranks[0]), "F0 F1 F2 F3 F4 B0 F5 B1 B2 B3 B4 B5");
}

}  // namespace
}  // namespace tessera
