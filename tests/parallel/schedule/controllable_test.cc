#include "parallel/schedule/controllable.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "parallel/schedule/passes.h"
#include "parallel/schedule/verify.h"
#include "parallel/schedule/weights.h"

namespace tessera {
namespace {

int64_t peak(const PipelineSchedule& compute) {
  const ScheduleFigures figures = verify(append_step(insert_messages(compute)));
  return *std::max_element(figures.peak_bytes.begin(), figures.peak_bytes.end());
}

// 1F1B's peak is p slots of a p-th of the model; these are slots of half as much.
TEST(ScheduleControllable, PeaksAreAHalfAndAThirdOf1F1Bs) {
  for (int p = 1; p <= 20; ++p) {
    for (int m : {1, p, 2 * p, 4 * p}) {
      EXPECT_LE(peak(v_half_schedule(p, m, {})), 2 * ((p + 2) / 2)) << p << " " << m;
      EXPECT_LE(peak(v_min_schedule(p, m, {})), 2 * ((p + 4) / 3)) << p << " " << m;
      const ScheduleCosts uneven{.stages = std::vector<StageCosts>(2 * p, {1, 1.4, 0.6}), .latency = 0.1};
      EXPECT_LE(peak(v_half_schedule(p, m, uneven)), 2 * ((p + 2) / 2)) << p << " " << m;
      EXPECT_LE(peak(v_min_schedule(p, m, uneven)), 2 * ((p + 4) / 3)) << p << " " << m;
    }
  }
}

// The authors give half and two thirds of 1F1B's bubble, (p - 1)(F + B + W), which is 6 (p - 1) passes here.
TEST(ScheduleControllable, BubblesAreHalfAndTwoThirdsOf1F1Bs) {
  for (int p : {4, 8, 16, 32}) {
    const int m = 4 * p;
    const auto bubble = [&](const PipelineSchedule& schedule, int limit) {
      const auto timed = place_weights(schedule, {}, {.stages = {}, .limits = std::vector<int64_t>(p, limit)});
      return (timed->span - 6 * m) / (6 * (p - 1));
    };
    EXPECT_LE(bubble(v_half_schedule(p, m, {}), 2 * ((p + 2) / 2)), 0.5 + 1.0 / p) << p;
    EXPECT_LE(bubble(v_min_schedule(p, m, {}), 2 * ((p + 4) / 3)), 2.0 / 3 + 1.0 / p) << p;
  }
}

TEST(ScheduleControllable, BlocksTakeTheMemoryOfTheirOffsets) {
  for (int p : {6, 12, 24}) {
    for (int offset = 2; offset <= 6; ++offset) {
      const std::optional<BlockOrder> block = building_block_order(p, 1, offset);
      ASSERT_TRUE(block.has_value() || offset == 4 || offset == 5) << p;
      if (!block) continue;
      EXPECT_GE(block->slots, 2 * p * offset / 6) << p << " " << offset;
      EXPECT_LE(block->slots, 2 * p * offset / 6 + 4) << p << " " << offset;
    }
  }
}

}  // namespace
}  // namespace tessera
