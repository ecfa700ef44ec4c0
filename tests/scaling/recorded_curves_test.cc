#include "scaling/recorded_curves.h"

#include <gtest/gtest.h>

#include <cmath>

#include "scaling/training_record.pb.h"
#include "tensor/check.h"

namespace tessera {
namespace {

TrainingRecord curve(int64_t steps, int64_t stride) {
  TrainingRecord record;
  record.set_name("r");
  record.set_warmup_steps(10);
  auto& points = *record.mutable_curve();
  points.set_stride(stride);
  for (int64_t step = 1; step <= steps; ++step) {
    if (step != 1 && step % stride != 0) continue;
    points.add_step(step);
    points.add_loss(100.0 - static_cast<double>(step) / 10);
    points.add_learning_rate(step <= 10 ? 0.1 * static_cast<double>(step) : 1 - 0.01 * static_cast<double>(step - 10));
  }
  return record;
}

TEST(RecordedCurves, LearningRatesAreThoseOfEveryStep) {
  for (const int64_t stride : {1, 2}) {
    const LossCurve found = curve_of(curve(100, stride), 9);
    ASSERT_EQ(found.learning_rates.size(), 100u);
    for (size_t i = 0; i < 100; ++i) {
      const double expected = i < 10 ? 0.1 * static_cast<double>(i + 1) : 1 - 0.01 * static_cast<double>(i - 9);
      EXPECT_NEAR(found.learning_rates[i], expected, 1e-12) << "step " << i + 1 << " stride " << stride;
    }
    EXPECT_EQ(found.steps.size(), 9u);
    EXPECT_GT(found.steps.front(), 10u);
    // A straight line of losses stays one, whatever is averaged.
    for (size_t i = 0; i < 9; ++i)
      EXPECT_NEAR(found.losses[i], 100.0 - static_cast<double>(found.steps[i]) / 10, 0.051) << i;
  }
  EXPECT_THROW(curve_of(curve(15, 1), 9), DataError);
}

// Runs that follow S = S_min + E_min / B to each loss: B_crit comes out.
TEST(RecordedCurves, TheCriticalBatchIsRecovered) {
  const auto least_steps = [](double loss) { return 50 * std::pow(4 / loss, 6); };
  constexpr double kCritical = 3000;
  std::vector<TrainingRecord> records;
  for (const double batch : {500.0, 2000.0, 8000.0}) {
    TrainingRecord& record = records.emplace_back();
    record.set_batch_tokens(static_cast<int64_t>(batch));
    for (double loss = 4; loss > 2.5; loss -= 0.002) {
      auto& measured = *record.add_validation_loss();
      measured.set_step(std::llround(100 * least_steps(loss) * (1 + kCritical / batch)));
      measured.set_loss(loss);
    }
  }
  for (const BatchLaw& law : batch_laws(records)) EXPECT_NEAR(law.critical.tokens(), kCritical, 0.01 * kCritical);
  EXPECT_GE(batch_laws(records).size(), 4u);
  records.resize(1);
  EXPECT_THROW(batch_laws(records), DataError);
}

TEST(RecordedCurves, StepsToALossAreInterpolated) {
  TrainingRecord record;
  for (const auto& [step, loss] : {std::pair(100, 5.0), {400, 3.0}}) {
    auto& measured = *record.add_validation_loss();
    measured.set_step(step);
    measured.set_loss(loss);
  }
  EXPECT_DOUBLE_EQ(steps_to(record, 4), 200) << "halfway in log step";
  EXPECT_DOUBLE_EQ(steps_to(record, 5), 100);
  EXPECT_EQ(steps_to(record, 2), 0) << "never";
}

}  // namespace
}  // namespace tessera
