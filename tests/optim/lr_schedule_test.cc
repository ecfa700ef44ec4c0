#include "optim/lr_schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numbers>

#include "optim/optim.pb.h"
#include "tensor/check.h"

namespace tessera {
namespace {

constexpr double kPeak = 3e-4, kFloor = 3e-5;

LrScheduleConfig config_of(LrScheduleConfig::Kind kind) {
  LrScheduleConfig config;
  config.set_kind(kind);
  config.set_learning_rate(kPeak);
  config.set_min_learning_rate(kFloor);
  config.set_warmup_steps(10);
  if (kind != LrScheduleConfig::CONSTANT) config.set_decay_end_step(110);
  if (kind == LrScheduleConfig::WSD) config.set_decay_steps(40);
  return config;
}

constexpr auto kKinds = {LrScheduleConfig::CONSTANT, LrScheduleConfig::LINEAR, LrScheduleConfig::COSINE,
                         LrScheduleConfig::WSD};

TEST(LrSchedule, WarmsUpLinearlyFromTheFirstStepForEveryKind) {
  for (auto kind : kKinds) {
    for (int64_t step = 1; step <= 10; ++step)
      EXPECT_DOUBLE_EQ(learning_rate_at(config_of(kind), step), kPeak * static_cast<double>(step) / 10) << step;
  }
}

TEST(LrSchedule, StartsAtThePeakWithoutWarmUp) {
  for (auto kind : {LrScheduleConfig::CONSTANT, LrScheduleConfig::WSD}) {
    LrScheduleConfig config = config_of(kind);
    config.set_warmup_steps(0);
    EXPECT_EQ(learning_rate_at(config, 1), kPeak);
  }
}

TEST(LrSchedule, ConstantStays) {
  EXPECT_EQ(learning_rate_at(config_of(LrScheduleConfig::CONSTANT), 11), kPeak);
  EXPECT_EQ(learning_rate_at(config_of(LrScheduleConfig::CONSTANT), 1'000'000), kPeak);
}

TEST(LrSchedule, LinearIsAStraightLineToTheFloor) {
  const LrScheduleConfig config = config_of(LrScheduleConfig::LINEAR);
  for (int64_t step = 10; step <= 110; ++step)
    EXPECT_NEAR(learning_rate_at(config, step), kPeak + (kFloor - kPeak) * static_cast<double>(step - 10) / 100,
                4 * 0x1p-53 * kPeak);
}

TEST(LrSchedule, CosineHasItsClosedFormValues) {
  const LrScheduleConfig config = config_of(LrScheduleConfig::COSINE);
  const double tolerance = 4 * 0x1p-53 * kPeak;
  EXPECT_NEAR(learning_rate_at(config, 35), kFloor + (kPeak - kFloor) * (0.5 + std::numbers::sqrt2 / 4), tolerance);
  EXPECT_NEAR(learning_rate_at(config, 60), (kPeak + kFloor) / 2, tolerance);
  EXPECT_NEAR(learning_rate_at(config, 85), kFloor + (kPeak - kFloor) * (0.5 - std::numbers::sqrt2 / 4), tolerance);
}

TEST(LrSchedule, WsdIsConstantAndThenDecaysInItsShape) {
  LrScheduleConfig config = config_of(LrScheduleConfig::WSD);
  const struct {
    LrScheduleConfig::Decay decay;
    double quarter, half;  // what is left of peak - floor
  } shapes[] = {{LrScheduleConfig::LINEAR_DECAY, 0.75, 0.5},
                {LrScheduleConfig::COSINE_DECAY, 0.5 + std::numbers::sqrt2 / 4, 0.5},
                {LrScheduleConfig::SQRT_DECAY, 0.5, 1 - std::numbers::sqrt2 / 2}};
  for (const auto& shape : shapes) {
    config.set_decay(shape.decay);
    const double tolerance = 4 * 0x1p-53 * kPeak;
    for (int64_t step = 11; step <= 70; ++step) EXPECT_DOUBLE_EQ(learning_rate_at(config, step), kPeak);
    EXPECT_LT(learning_rate_at(config, 71), kPeak);
    EXPECT_NEAR(learning_rate_at(config, 80), kFloor + (kPeak - kFloor) * shape.quarter, tolerance);
    EXPECT_NEAR(learning_rate_at(config, 90), kFloor + (kPeak - kFloor) * shape.half, tolerance);
  }
}

TEST(LrSchedule, DecaysMonotonicallyAndWithoutJumpsToTheFloorAndStaysThere) {
  for (auto kind : {LrScheduleConfig::LINEAR, LrScheduleConfig::COSINE, LrScheduleConfig::WSD}) {
    for (auto decay : {LrScheduleConfig::LINEAR_DECAY, LrScheduleConfig::COSINE_DECAY, LrScheduleConfig::SQRT_DECAY}) {
      LrScheduleConfig config = config_of(kind);
      config.set_decay(decay);
      // The steepest: the square root's first step of 40, sqrt(1/40).
      const double largest_drop = (kPeak - kFloor) * std::sqrt(1.0 / 40) * (1 + 1e-12);
      for (int64_t step = 11; step <= 110; ++step) {
        const double drop = learning_rate_at(config, step - 1) - learning_rate_at(config, step);
        EXPECT_GE(drop, 0) << kind << " " << decay << " " << step;
        EXPECT_LE(drop, largest_drop) << kind << " " << decay << " " << step;
      }
      EXPECT_EQ(learning_rate_at(config, 110), kFloor);
      EXPECT_EQ(learning_rate_at(config, 111), kFloor);
      EXPECT_EQ(learning_rate_at(config, 100'000), kFloor);
    }
  }
}

TEST(LrSchedule, AWarmUpThatLastsToTheEndHasNothingToDecay) {
  for (auto kind : {LrScheduleConfig::LINEAR, LrScheduleConfig::COSINE, LrScheduleConfig::WSD}) {
    LrScheduleConfig config = config_of(kind);
    config.set_decay_end_step(10);
    config.set_decay_steps(0);
    EXPECT_EQ(learning_rate_at(config, 10), kPeak);
    EXPECT_EQ(learning_rate_at(config, 11), kFloor);
  }
}

TEST(LrSchedule, EveryBrokenRuleIsNamedWithFieldAndValue) {
  const auto expect_problem = [](const LrScheduleConfig& config, const std::string& start) {
    const auto found = problems(config);
    ASSERT_EQ(found.size(), 1u) << start;
    EXPECT_EQ(found[0].substr(0, start.size()), start);
    EXPECT_THROW(learning_rate_at(config, 1), UsageError);
  };
  const LrScheduleConfig good = config_of(LrScheduleConfig::WSD);
  EXPECT_TRUE(problems(good).empty());

  LrScheduleConfig config = good;
  config.set_min_learning_rate(2 * kPeak);
  expect_problem(config, "lr_schedule.min_learning_rate = 0.0006: must not exceed lr_schedule.learning_rate = 0.0003");
  config.set_min_learning_rate(-1);
  expect_problem(config, "lr_schedule.min_learning_rate = -1: ");
  config = good;
  config.set_learning_rate(std::numeric_limits<double>::infinity());
  expect_problem(config, "lr_schedule.learning_rate = inf: ");
  config = good;
  config.set_warmup_steps(-1);
  expect_problem(config, "lr_schedule.warmup_steps = -1: ");
  config.set_warmup_steps(111);
  expect_problem(config, "lr_schedule.warmup_steps = 111: must not exceed lr_schedule.decay_end_step = 110");
  config.set_warmup_steps(71);
  expect_problem(config, "lr_schedule.decay_steps = 40: must be from 0 to 39");
  config = good;
  config.clear_decay_end_step();
  expect_problem(config, "lr_schedule.decay_end_step = 0: must be at least 1");

  config = good;  // two at once are both told
  config.set_learning_rate(std::numeric_limits<double>::quiet_NaN());
  config.set_warmup_steps(200);
  EXPECT_EQ(problems(config).size(), 2u);
}

}  // namespace
}  // namespace tessera
