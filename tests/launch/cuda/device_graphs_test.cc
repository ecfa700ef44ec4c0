// Steps whose blocks are queued as graphs: the bits of those that are not, and how much the host then starts.
#include <gtest/gtest.h>

#include "launch/run.pb.h"
#include "tests/launch/cuda/device_run.h"
#include "tests/support/grid/streams.h"

namespace tessera {
namespace {

using namespace testing_device;

void expect_same_bits(RunConfig config, int ranks = 1) {
  config.mutable_run()->set_cuda_graphs(CudaGraphs::OFF);
  const Curve plain = train(config, ranks);
  config.mutable_run()->set_cuda_graphs(CudaGraphs::AUTO);
  const int64_t before = grid::stream_calls().graphs;
  const Curve recorded = train(config, ranks);
  EXPECT_GT(grid::stream_calls().graphs, before);
  EXPECT_EQ(recorded.losses, plain.losses);
  EXPECT_EQ(recorded.norms, plain.norms);
  EXPECT_EQ(recorded.evaluation, plain.evaluation);
  EXPECT_EQ(recorded.gradients, plain.gradients);
  EXPECT_EQ(recorded.state, plain.state);
}

class DeviceGraphs : public ::testing::TestWithParam<std::tuple<ModelConfig::Family, RunSection::ComputeDtype>> {
 protected:
  static RunConfig config() {
    RunConfig config = small_config(std::get<0>(GetParam()), std::get<1>(GetParam()));
    config.mutable_data()->set_global_batch_size(4);
    return config;
  }
};
INSTANTIATE_TEST_SUITE_P(Models, DeviceGraphs,
                         ::testing::Combine(::testing::Values(ModelConfig::LLAMA, ModelConfig::GPT2),
                                            ::testing::Values(RunSection::F32, RunSection::BF16)),
                         [](const auto& at) {
                           return ModelConfig::Family_Name(std::get<0>(at.param)) + "_" +
                                  RunSection::ComputeDtype_Name(std::get<1>(at.param));
                         });

TEST_P(DeviceGraphs, ChangeNoBit) { expect_same_bits(config()); }

TEST_P(DeviceGraphs, ChangeNoBitOfWhatIsMadeAgain) {
  RunConfig config = DeviceGraphs::config();
  config.mutable_parallel()->set_recompute("full:0,selective:1");
  expect_same_bits(config);
  config.mutable_parallel()->set_schedule("gpipe");
  expect_same_bits(config);
}

TEST_P(DeviceGraphs, ChangeNoBitOfOtherLayouts) {
  RunConfig config = DeviceGraphs::config();
  config.mutable_model()->set_num_hidden_layers(4);
  config.mutable_parallel()->set_pp(2);
  config.mutable_parallel()->set_schedule("zb-v");
  expect_same_bits(config, 2);
  config.mutable_parallel()->set_schedule("1f1b");
  config.mutable_parallel()->set_pp(1);
  config.mutable_parallel()->set_dp(2);
  for (const int zero_stage : {2, 3}) {
    config.mutable_parallel()->set_zero_stage(zero_stage);
    expect_same_bits(config, 2);
  }
}

// Of the third step.
grid::StreamCalls calls_of_a_step(int64_t layers, int64_t microbatches, CudaGraphs::Mode mode) {
  RunConfig config = small_config(ModelConfig::LLAMA, RunSection::F32);
  config.mutable_model()->set_num_hidden_layers(layers);
  config.mutable_run()->set_cuda_graphs(mode);
  return calls_of_step(config, microbatches, 3);
}

TEST(DeviceGraphCalls, LeaveNoKernelOfABlockToTheHost) {
  const auto at = [](int64_t layers, int64_t microbatches) {
    return calls_of_a_step(layers, microbatches, CudaGraphs::AUTO);
  };
  const grid::StreamCalls one = at(1, 2), three = at(3, 2);
  EXPECT_EQ(one.graphs, 2 * 2) << "a forward and a backward for each microbatch";
  EXPECT_EQ(three.graphs, one.graphs);
  // A layer's parameters have a sum of squares (two kernels) and an update each, and the clearing of its gradients;
  // nothing else is started for it.
  const int64_t of_a_layer = (three.kernels - one.kernels) / 2;
  EXPECT_EQ(at(3, 4).kernels - at(1, 4).kernels, 2 * of_a_layer) << "whatever the microbatches";
  const grid::StreamCalls plain = calls_of_a_step(3, 2, CudaGraphs::OFF);
  EXPECT_EQ(plain.graphs, 0);
  EXPECT_GT(plain.kernels, 2 * three.kernels);
}

}  // namespace
}  // namespace tessera
