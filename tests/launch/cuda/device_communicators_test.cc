// Which of NCCL's communicators a run makes, and when: counted by the tests' libnccl.
#include <gtest/gtest.h>

#include "launch/run.pb.h"
#include "tests/launch/cuda/device_run.h"

extern "C" int fake_nccl_ids();  // tests/support/grid/nccl.cc
extern "C" int fake_nccl_splits();

namespace tessera {
namespace {

using namespace testing_device;

// Communicators of a step's collectives are there before the first step: the world's, split for each group.
TEST(DeviceCommunicators, AreSplitBeforeTheFirstStep) {
  RunConfig config = small_config(ModelConfig::LLAMA, RunSection::F32);
  config.mutable_parallel()->set_tp(2);
  config.mutable_parallel()->set_dp(2);
  config.mutable_parallel()->set_zero_stage(2);
  const int ids = fake_nccl_ids(), splits = fake_nccl_splits();
  train(config, 4, DeviceTransport::Nccl);
  EXPECT_EQ(fake_nccl_ids() - ids, 1);
  EXPECT_EQ(fake_nccl_splits() - splits, 3 * 4);  // tp, dp*cp, dp*cp*tp
}

}  // namespace
}  // namespace tessera
