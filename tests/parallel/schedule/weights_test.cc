#include "parallel/schedule/weights.h"

#include <gtest/gtest.h>

#include "parallel/schedule/text.h"
#include "parallel/schedule/zero_bubble.h"

namespace tessera {
namespace {

TEST(ScheduleWeights, TimesAreThoseOfTheFormulas) {
  // Qi et al. 2023, table 2, with whole stages of F, B and W.
  const double f = 3, b = 4, w = 2;
  for (int p : {2, 4, 7}) {
    const int m = 3 * p;
    const ScheduleCosts costs{.stages = std::vector<StageCosts>(p, {f, b, w}), .latency = 0};
    const auto placed = [&](int warmup) {
      return *place_weights(forward_backward_order(p, m, warmup), costs,
                            {.stages = {}, .limits = std::vector<int64_t>(p, warmup * (p - 1) + 1)});
    };
    EXPECT_NEAR(placed(1).span - m * (f + b + w), (p - 1) * (f + b - w), 1e-9) << p;
    EXPECT_NEAR(placed(2).span - m * (f + b + w), (p - 1) * (f + b - 2 * w), 1e-9) << p;
  }
}

TEST(ScheduleWeights, PatienceDecidesWhetherAShortWaitIsFilled) {
  // Rank 0 waits 2 units for the gradient of its only microbatch, then has nothing to do.
  const ScheduleCosts costs{.stages = {{1, 1, 3}, {1, 1, 3}}, .latency = 0};
  const PipelineSchedule order = forward_backward_order(2, 2, 1);
  const auto first = [&](double patience) {
    return to_string(place_weights(order, costs, {}, patience)->schedule.ranks[0]);
  };
  EXPECT_EQ(first(1), "F0 F1 B0 B1 W0 W1");
  EXPECT_EQ(first(0), "F0 F1 B0 W0 B1 W1");
}

TEST(ScheduleWeights, ALimitForcesWeightsOrMakesItImpossible) {
  const PipelineSchedule order = forward_backward_order(2, 4, 1);
  EXPECT_EQ(to_string(place_weights(order, {}, {.stages = {}, .limits = {2, 1}})->schedule.ranks[1]),
            "F0@1 B0@1 W0@1 F1@1 B1@1 W1@1 F2@1 B2@1 W2@1 F3@1 B3@1 W3@1");
  EXPECT_FALSE(place_weights(order, {}, {.stages = {}, .limits = {1, 1}}).has_value());
  // A circle: rank 1 wants both forwards before it goes back, rank 0 the gradient before the second forward.
  PipelineSchedule circle = order;
  circle.microbatches = 2;
  circle.ranks = {parse_schedule("F0 B0 F1 B1"), parse_schedule("F0@1 F1@1 B0@1 B1@1")};
  EXPECT_FALSE(place_weights(circle, {}, {}).has_value());
}

}  // namespace
}  // namespace tessera
