#include "parallel/schedule/interleaved.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "parallel/schedule/passes.h"
#include "parallel/schedule/text.h"
#include "parallel/schedule/verify.h"

namespace tessera {
namespace {

ScheduleFigures verified(const PipelineSchedule& compute) { return verify(append_step(insert_messages(compute))); }

TEST(ScheduleInterleaved, GPipeRunsAllForwardsFirst) {
  const PipelineSchedule schedule = gpipe_schedule(2, 3);
  EXPECT_EQ(to_string(schedule.ranks[0]), "F0 F1 F2 B0 W0 B1 W1 B2 W2");
  EXPECT_EQ(to_string(schedule.ranks[1]), "F0@1 F1@1 F2@1 B0@1 W0@1 B1@1 W1@1 B2@1 W2@1");
  for (int p : {1, 2, 5}) {
    for (int m : {1, 3, 8}) {
      for (const StageFigures& stage : verified(gpipe_schedule(p, m)).stages) EXPECT_EQ(stage.slots, m);
    }
  }
}

TEST(ScheduleInterleaved, OneForwardOneBackwardKeepsAsManyAliveAsStagesFollow) {
  const PipelineSchedule schedule = one_forward_one_backward_schedule(3, 4);
  EXPECT_EQ(to_string(schedule.ranks[0]), "F0 F1 F2 B0 W0 F3 B1 W1 B2 W2 B3 W3");
  EXPECT_EQ(to_string(schedule.ranks[2]), "F0@2 B0@2 W0@2 F1@2 B1@2 W1@2 F2@2 B2@2 W2@2 F3@2 B3@2 W3@2");
  for (int p : {1, 2, 3, 8}) {
    for (int m : {1, 2, 3, 7, 16}) {
      const ScheduleFigures figures = verified(one_forward_one_backward_schedule(p, m));
      for (int r = 0; r < p; ++r) EXPECT_EQ(figures.stages[r].slots, std::min(m, p - r)) << p << " " << m << " " << r;
    }
  }
}

TEST(ScheduleInterleaved, GroupsPassThroughAllChunks) {
  const PipelineSchedule schedule = interleaved_schedule(2, 4, 2, 2);
  EXPECT_EQ(to_string(schedule.ranks[0]),
            "F0 F1 F0@2 F1@2 F2 B0@2 W0@2 F3 B1@2 W1@2 F2@2 B0 W0 F3@2 B1 W1 B2@2 W2@2 B3@2 W3@2 B2 W2 B3 W3");
  EXPECT_EQ(to_string(schedule.ranks[1]),
            "F0@1 F1@1 F0@3 B0@3 W0@3 F1@3 B1@3 W1@3 F2@1 B0@1 W0@1 F3@1 B1@1 W1@1 F2@3 B2@3 W2@3 F3@3 B3@3 W3@3 B2@1 "
            "W2@1 B3@1 W3@1");
  // Korthikanti et al. 2022: (1 + (p - 1) / (p v)) p slots of the whole depth, each 1/v on a chunk.
  for (int p : {2, 4, 8}) {
    for (int v : {2, 3}) {
      EXPECT_EQ(verified(interleaved_schedule(p, 4 * p, v, p)).peak_bytes[0], p * v + p - 1) << p << " " << v;
    }
  }
  EXPECT_EQ(interleaved_schedule(4, 8, 1, 4), one_forward_one_backward_schedule(4, 8));
}

TEST(ScheduleInterleaved, AnyGroupAndAnyNumberOfMicrobatchesRuns) {
  for (int p = 1; p <= 5; ++p) {
    for (int m = 1; m <= 11; ++m) {
      for (int v = 1; v <= 4; ++v) {
        for (int g : {1, 2, 3, 5, 8, 20}) {
          EXPECT_NO_THROW(verified(interleaved_schedule(p, m, v, g))) << p << " " << m << " " << v << " " << g;
        }
      }
    }
  }
}

}  // namespace
}  // namespace tessera
