#include "launch/run/recording.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <limits>

#include "launch/metrics/metrics_log.h"
#include "scaling/record_file.h"
#include "scaling/training_record.pb.h"

namespace tessera {
namespace {

class RecordingTest : public ::testing::Test {
 protected:
  RecordingTest() : directory_(::testing::TempDir() + "recording_test_" + std::to_string(::getpid())) {
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directories(directory_);
    facts_.set_name("r");
    facts_.set_planned_steps(100000);
  }
  ~RecordingTest() override { std::filesystem::remove_all(directory_); }

  std::string log_path() const { return directory_ + "/metrics.jsonl"; }
  Recording recording(int64_t resumed) {
    return Recording(
        directory_, facts_,
        [](double slots, double pairs) { return StepFlops{.matrices = 2.5 * slots, .attention = pairs, .head = 1}; },
        log_path(), resumed);
  }
  static StepMetrics metrics(int64_t step) {
    StepMetrics m;
    m.step = step;
    m.tokens = 7 * step;
    m.loss = 10.0 / static_cast<double>(step);
    m.learning_rate = 0.001 * static_cast<double>(step);
    m.step_seconds = 0.25;
    m.attention_pairs = 3;
    m.slots = 4;
    if (step % 2 == 0) {
      m.gradient_square = 2;
      m.gradient_noise = step <= 4 ? 1000 : 50;  // what is early does not count
    }
    return m;
  }
  TrainingRecord read() const {
    TrainingRecord record;
    read_record(directory_, record);
    return record;
  }

  std::string directory_;
  TrainingRecord facts_;
};

TEST_F(RecordingTest, SaysWhatWasObserved) {
  Recording r = recording(0);
  r.observe({.step = 0, .validation_loss = 5, .dataset = "a"});
  for (int64_t step = 1; step <= 8; ++step) r.observe(metrics(step));
  r.write_unfinished(16, 0.5);
  const TrainingRecord record = read();
  EXPECT_EQ(record.status(), TrainingRecord::UNFINISHED);
  EXPECT_EQ(record.step(), 8);
  EXPECT_EQ(record.tokens(), 56);
  EXPECT_EQ(record.unique_tokens(), 28);
  EXPECT_EQ(record.samples(), 16);
  EXPECT_DOUBLE_EQ(record.seconds(), 2);
  EXPECT_DOUBLE_EQ(record.last_learning_rate(), 0.008);
  EXPECT_EQ(record.flops().matrices(), 80);
  EXPECT_EQ(record.flops().attention(), 24);
  EXPECT_EQ(record.flops().head(), 1);
  EXPECT_EQ(record.curve().step_size(), 8);
  EXPECT_EQ(record.curve().loss(3), 2.5);
  EXPECT_EQ(record.validation_loss(0).loss(), 5);
  EXPECT_EQ(record.gradient_noise().measurements(), 2);
  EXPECT_DOUBLE_EQ(record.gradient_noise().scale_tokens(), 25);
  r.write_diverged(16, 1, "step 9: the loss is nan");
  EXPECT_EQ(read().status(), TrainingRecord::DIVERGED);
  EXPECT_EQ(read().reason(), "step 9: the loss is nan");
}

TEST_F(RecordingTest, ThinsLongCurvesByPowersOfTwo) {
  Recording r = recording(0);
  const int64_t steps = 3 * Recording::kMostPoints;
  for (int64_t step = 1; step <= steps; ++step) r.observe(metrics(step));
  r.write_finished(1, 1);
  const TrainingRecord record = read();
  const auto& curve = record.curve();
  EXPECT_EQ(curve.stride(), 4);
  EXPECT_EQ(curve.step(0), 1);
  for (int i = 1; i < curve.step_size(); ++i) EXPECT_EQ(curve.step(i), 4 * i);
  EXPECT_EQ(curve.step_size(), 1 + steps / 4);
  EXPECT_EQ(read().step(), steps);
}

TEST_F(RecordingTest, GoesOnFromTheMetricsOfAnEarlierStart) {
  Recording whole = recording(0);
  {
    MetricsLog log(log_path(), MetricsLog::kFresh);
    log.write({.step = 0, .validation_loss = 5, .dataset = "a"});
    for (int64_t step = 1; step <= 6; ++step) log.write(metrics(step));
  }
  whole.observe({.step = 0, .validation_loss = 5, .dataset = "a"});
  for (int64_t step = 1; step <= 8; ++step) whole.observe(metrics(step));
  whole.write_finished(16, 1);
  const std::string expected = read().DebugString();
  Recording resumed = recording(4);  // steps 5 and 6 were lost
  for (int64_t step = 5; step <= 8; ++step) resumed.observe(metrics(step));
  resumed.write_finished(16, 1);
  EXPECT_EQ(read().DebugString(), expected);

  // Lines that do not say how many slots a step had are of an older program: all were as they are now.
  facts_.set_batch_tokens(4);
  std::ofstream(log_path()) << R"({"step":1,"tokens":7,"loss":10,"learning_rate":0.001,"attention_pairs":3})"
                            << "\n";
  Recording older = recording(1);
  older.observe(metrics(2));
  older.write_unfinished(4, 1);
  EXPECT_EQ(read().flops().matrices(), 20);

  // Without the lines it says less.
  std::filesystem::remove(log_path());
  Recording blind = recording(4);
  for (int64_t step = 5; step <= 8; ++step) blind.observe(metrics(step));
  blind.write_finished(16, 1);
  EXPECT_FALSE(read().has_flops());
  EXPECT_EQ(read().curve().step_size(), 4);
}

}  // namespace
}  // namespace tessera
