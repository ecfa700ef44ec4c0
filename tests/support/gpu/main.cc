// The main of tests that need a GPU. Without one they say why, and only what can be tested then is.
#include <gtest/gtest.h>

#include <cstdio>

#include "tensor/cuda/device.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const tessera::cuda::Devices devices = tessera::cuda::find_devices();
  if (devices.count == 0) {
    std::printf("no GPU: %s; kernels are not run here\n", devices.reason.c_str());
    testing::GTEST_FLAG(filter) = "Devices.*";
  } else {
    std::printf("GPU: %s\n", tessera::cuda::use_device(0).name.c_str());
  }
  return RUN_ALL_TESTS();
}
