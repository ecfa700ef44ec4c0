// How often a step waits for the device and copies to it, counted by the emulated device.
#include <gtest/gtest.h>

#include "launch/run.pb.h"
#include "tests/launch/cuda/device_run.h"
#include "tests/support/grid/streams.h"

namespace tessera {
namespace {

using namespace testing_device;

// Of the second step: the first one makes what later ones keep.
grid::StreamCalls calls_of_a_step(const RunConfig& config, int64_t microbatches) {
  return calls_of_step(config, microbatches, 2);
}

RunConfig with_layers(int64_t layers) {
  RunConfig config = small_config(ModelConfig::LLAMA, RunSection::F32);
  config.mutable_model()->set_num_hidden_layers(layers);
  return config;
}

TEST(DeviceWaits, AreTwoAStep) {
  for (const int64_t layers : {1, 3}) {
    for (const int64_t microbatches : {1, 3}) {
      const grid::StreamCalls calls = calls_of_a_step(with_layers(layers), microbatches);
      EXPECT_EQ(calls.waits, 2) << layers << " layers, " << microbatches << " microbatches: for the loss and the norm";
      EXPECT_EQ(calls.to_host, 2) << layers << " layers, " << microbatches << " microbatches";
    }
  }
}

TEST(DeviceUploads, AreThoseOfAMicrobatchWhateverTheLayers) {
  const int64_t one = calls_of_a_step(with_layers(1), 1).to_device;
  EXPECT_EQ(calls_of_a_step(with_layers(3), 1).to_device, one);
  EXPECT_EQ(calls_of_a_step(with_layers(3), 3).to_device, 3 * one);
}

TEST(DeviceUploads, HaveListsForEachKindOfAttention) {
  RunConfig config = with_layers(4);
  const int64_t one = calls_of_a_step(config, 1).to_device;
  config.mutable_model()->set_sliding_window(8);
  config.mutable_model()->set_max_window_layers(2);  // two with a window, two without
  constexpr int64_t kLists = 5;                      // positions, documents; tiles: offsets, keys, flags
  EXPECT_EQ(calls_of_a_step(config, 1).to_device, one + kLists);
}

}  // namespace
}  // namespace tessera
