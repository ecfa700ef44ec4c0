#include "tensor/cuda/device.h"

#include <gtest/gtest.h>

#include "tensor/context.h"

namespace tessera {
namespace {

TEST(Devices, AreThereOrAReasonIs) {
  const cuda::Devices devices = cuda::find_devices();
  EXPECT_GE(devices.count, 0);
  EXPECT_EQ(devices.count == 0, !devices.reason.empty());
  EXPECT_EQ(devices.reason.find('\n'), std::string::npos);
}

TEST(Devices, AContextOnAGpuWorksOrSaysWhyNot) {
  const cuda::Devices devices = cuda::find_devices();
  if (devices.count > 0) {
    const Context context({.device = Device::Cuda, .workspace_bytes = 4096});
    EXPECT_EQ(context.workspace().capacity(), 4096);
    context.synchronize();
    return;
  }
  try {
    const Context context({.device = Device::Cuda});
    FAIL() << "a context on a GPU that is not there";
  } catch (const UsageError& error) {
    EXPECT_NE(std::string(error.what()).find(devices.reason), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace tessera
