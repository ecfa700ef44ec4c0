#include "parallel/schedule/v.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "parallel/schedule/passes.h"
#include "parallel/schedule/text.h"
#include "parallel/schedule/verify.h"
#include "parallel/schedule/weights.h"

namespace tessera {
namespace {

ScheduleFigures verified(const PipelineSchedule& compute) { return verify(append_step(insert_messages(compute))); }

TEST(ScheduleV, ZbVHasNoBubbleWith1F1BsMemory) {
  for (int p = 1; p <= 9; ++p) {
    for (int m : {1, p, 2 * p, 5 * p}) {
      const PipelineSchedule schedule = zb_v_schedule(p, m, {});
      for (int64_t peak : verified(schedule).peak_bytes) EXPECT_LE(peak, 2 * std::min(p, m));
      if (m < 2 * p) continue;
      // The same order, timed: every rank works without a gap.
      const auto timed = place_weights(schedule, {}, {.stages = {}, .limits = std::vector<int64_t>(p, 2 * p)});
      EXPECT_NEAR(timed->span, 6 * m, 1e-9) << p << " " << m;
    }
  }
}

TEST(ScheduleV, DualPipeVIsThePublishedOrder) {
  const PipelineSchedule schedule = dualpipe_v_schedule(2, 5);
  EXPECT_EQ(to_string(schedule.ranks[0]),
            "F0 F1 F2 F0@3 B0@3 W0@3 F1@3 F3 B1@3 W1@3 F2@3 B0 W0 F4 B2@3 W2@3 F3@3 B1 W1 B3@3 W3@3 F4@3 B2 W2 "
            "B4@3 W4@3 B3 W3 B4 W4");
  for (int p = 1; p <= 9; ++p) {
    for (int m : {1, p, 2 * p, 5 * p}) {
      for (int64_t peak : verified(dualpipe_v_schedule(p, m)).peak_bytes) EXPECT_LE(peak, 2 * p + 1);
    }
  }
}

}  // namespace
}  // namespace tessera
