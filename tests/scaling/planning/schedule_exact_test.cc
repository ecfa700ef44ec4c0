// That it finds the best schedule is shown with the search (schedule_search_test.cc).
#include "scaling/planning/schedule_exact.h"

#include <gtest/gtest.h>

#include "scaling/planning/simulate.h"

namespace tessera {
namespace {

TEST(ScheduleExact, FindsTheZeroBubbleScheduleOfTwoRanks) {
  const ExactSchedule found = exact_schedule(2, 4, {}, {4, 4}, 1e9, 1'000'000);
  EXPECT_TRUE(found.complete);
  EXPECT_DOUBLE_EQ(simulate(*found.schedule, {}).makespan, 13);  // rank 1 begins one unit late and never waits
}

TEST(ScheduleExact, GivesUpAfterItsNodes) {
  const ExactSchedule none = exact_schedule(3, 6, {}, {6, 6, 6}, 1e9, 5);
  EXPECT_FALSE(none.complete);
  const ExactSchedule bounded = exact_schedule(2, 2, {}, {2, 2}, 1, 1000);  // nothing takes less than 1
  EXPECT_TRUE(bounded.complete);
  EXPECT_FALSE(bounded.schedule.has_value());
}

}  // namespace
}  // namespace tessera
