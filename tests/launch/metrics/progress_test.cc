#include "launch/metrics/progress.h"

#include <gtest/gtest.h>
#include <spdlog/logger.h>

#include <vector>

namespace tessera {
namespace {

StepMetrics step_of_seconds(int64_t step, double seconds) {
  StepMetrics metrics;
  metrics.step = step;
  metrics.step_seconds = seconds;
  return metrics;
}

TEST(Progress, OneLineSaysItAll) {
  Progress progress(0, 400);
  const StepMetrics m{.step = 120,
                      .tokens = 0,
                      .loss = 4.03121,
                      .grad_norm = 0.812,
                      .learning_rate = 2.96e-4,
                      .step_seconds = 0.152,
                      .tokens_per_second = 26947.4,
                      .mfu = 0.612,
                      .worst = {.memory_bytes = 412.0 * (1 << 20)}};
  progress.observe(m);
  const std::string line =
      "step 120/400  loss 4.0312  lr 2.96e-04  norm 0.81  152 ms  26,947 tok/s  MFU 61.2 %  412 MiB  ETA 43s";
  EXPECT_EQ(progress.line(m), line);
  StepMetrics shared = m;
  shared.mean.communication_seconds = 0.0304;
  shared.mean.bubble_seconds = 0.0152;
  shared.mean.data_seconds = 0.0007;  // less than half a per cent is left out
  EXPECT_EQ(progress.line(shared), line + "  comm 20 %  bubble 10 %");
}

TEST(Progress, TheFirstStepDoesNotSpoilTheEstimate) {
  Progress progress(0, 101);
  EXPECT_EQ(progress.remaining_seconds(), 0);
  progress.observe(step_of_seconds(1, 30));
  EXPECT_EQ(progress.remaining_seconds(), 3000);
  progress.observe(step_of_seconds(2, 1));
  EXPECT_EQ(progress.remaining_seconds(), 99);
}

TEST(Progress, TheEstimateFollowsAChangeOfPace) {
  Progress progress(0, 300);
  for (int64_t step = 1; step <= 100; ++step) progress.observe(step_of_seconds(step, 1));
  EXPECT_NEAR(progress.remaining_seconds(), 200, 1e-9);
  for (int64_t step = 101; step <= 200; ++step) progress.observe(step_of_seconds(step, 2));
  // An exponential average with weight 0.1 has forgotten all but 0.9^100 of the old pace.
  EXPECT_NEAR(progress.remaining_seconds(), 200, 100 * 1.1 * 2.7e-5);
}

TEST(Progress, CountsFromTheResumedStepToTheLast) {
  Progress progress(90, 100);
  progress.observe(step_of_seconds(91, 2));
  EXPECT_EQ(progress.remaining_seconds(), 18);
  progress.observe(step_of_seconds(100, 2));
  EXPECT_EQ(progress.remaining_seconds(), 0);
}

TEST(MemoryTable, AddsUp) {
  const std::vector<MemoryLine> lines = {{"weights", 3 << 20}, {"gradients", 3 << 20}, {"saved activations", 1 << 21}};
  EXPECT_EQ(memory_table(lines),
            "  weights              3.00 MiB\n"
            "  gradients            3.00 MiB\n"
            "  saved activations    2.00 MiB\n"
            "  total                8.00 MiB");
}

TEST(MemoryTable, KeepsAGpusMemoryAndTheHostsApart) {
  const std::vector<MemoryLine> lines = {
      {"weights", 3 << 20, Device::Cuda}, {"data", 1 << 20}, {"workspace", 1 << 21, Device::Cuda}};
  EXPECT_EQ(memory_table(lines),
            "  weights              3.00 MiB\n"
            "  data (host)          1.00 MiB\n"
            "  workspace            2.00 MiB\n"
            "  total on the GPU     5.00 MiB\n"
            "  total on the host    1.00 MiB");
}

TEST(Console, OnlyOneVoiceSpeaks) {
  ::testing::internal::CaptureStdout();
  make_console(Voice::Speaks)->info("step {}", 1);
  make_console(Voice::Silent)->info("step {}", 2);
  EXPECT_EQ(::testing::internal::GetCapturedStdout(), "step 1\n");
}

}  // namespace
}  // namespace tessera
