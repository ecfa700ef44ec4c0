#include "launch/measure/stage_times.h"

#include <gtest/gtest.h>

#include "data/order/synthetic_source.h"
#include "launch/config/run_layout.h"
#include "launch/run.pb.h"
#include "launch/run/assembly.h"
#include "parallel/comm/comm_threads.h"
#include "tests/launch/proof/small_pipeline.h"
#include "tests/support/ranks.h"

namespace tessera::testing {
namespace {

// Stages of 8 blocks and of 1, the second of which makes everything but the first block's input gradient again.
TEST(StageTimes, AreThoseOfEveryStageOnEveryRank) {
  if (under_mpi()) GTEST_SKIP() << "ranks are threads here";
  for (const char* schedule : {"schedule=1f1b", "schedule=zb-h1"}) {
    const RunConfig config =
        config_of(ModelConfig::LLAMA, false, {"pp=2", "dp=2", schedule, "blocks_per_stage=8,1", "recompute=full:8"},
                  {.hidden = 64, .ffn = 128});
    tessera::run_ranks(4, [&](Comm& world) {
      Assembly parts(config, plan_layout(config), world, 1);
      SyntheticSource source({.vocab = config.model().vocab_size(),
                              .sequence_length = config.data().sequence_length(),
                              .micro_batch_size = config.data().micro_batch_size(),
                              .global_batch_size = config.data().global_batch_size(),
                              .dp = 2,
                              .dp_rank = parts.mesh().coordinate(Axis::Dp)});
      const std::unique_ptr<Pipeline> pipeline = parts.training(source);
      const StageTimes times = measure_stage_times(parts.context(), parts.mesh(), *pipeline, 2, 1, 5, 8, 1e-3);
      ASSERT_EQ(times.stages.size(), 2u);
      for (const StageCosts& stage : times.stages) {
        EXPECT_GT(stage.forward, 0);
        EXPECT_GT(stage.backward_input, 0);
        EXPECT_GT(stage.backward_weight, 0);
      }
      EXPECT_EQ(times.recompute[0], 0);
      EXPECT_GT(times.recompute[1], 0);
      EXPECT_GT(times.rest, 0);
      for (const double own : {times.stages[0].forward, times.stages[1].backward_weight, times.rest}) {
        EXPECT_EQ(own, world.max(own));
        EXPECT_EQ(own, -world.max(-own));
      }
    });
  }
}

TEST(StageTimes, AreWhatTheSimulatorTakes) {
  const SimulationCosts costs = costs_of({.stages = {{1, 2, 3}, {3, 4, 5}}, .recompute = {0, 2}});
  EXPECT_EQ(costs.passes.stage(1).backward_input, 4);
  EXPECT_EQ(costs.recompute, 0.5);
}

TEST(StageTimes, AreWrittenAsTheConfigTakesThem) {
  const StageTimes times{.stages = {{0.0111111, 0.5, 1}, {2, 0.25, 3}}, .recompute = {0, 0}};
  EXPECT_EQ(times_of(times, &StageCosts::forward), "0.01111,2");
  EXPECT_EQ(times_of(times, &StageCosts::backward_input), "0.5,0.25");
}

}  // namespace
}  // namespace tessera::testing
