#include "tensor/cuda/device.h"

#include <gtest/gtest.h>

#include "tensor/context/context.h"

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

using cuda::NoDevice;

TEST(Devices, WhatIsMissingIsSaid) {
  EXPECT_EQ(cuda::why_no_device(NoDevice::OldDriver, 0, 13000, "cudaErrorInsufficientDriver"),
            "no NVIDIA driver is installed");
  EXPECT_EQ(cuda::why_no_device(NoDevice::OldDriver, 12040, 13000, "cudaErrorInsufficientDriver"),
            "the NVIDIA driver supports CUDA 12.4, and this build needs CUDA 13.0: update the driver");
  EXPECT_EQ(cuda::why_no_device(NoDevice::NoGpu, 13000, 13000, "cudaErrorNoDevice"),
            "the NVIDIA driver finds no GPU (is CUDA_VISIBLE_DEVICES empty?)");
  EXPECT_EQ(cuda::why_no_device(NoDevice::Other, 13000, 13000, "cudaErrorSystemNotReady (fabric manager?)"),
            "CUDA cannot be used: cudaErrorSystemNotReady (fabric manager?); nvidia-smi says in which state driver and "
            "GPUs are");
  EXPECT_EQ(cuda::why_not_used(3, "cudaErrorDevicesUnavailable (busy)"),
            "GPU 3 cannot be used: cudaErrorDevicesUnavailable (busy); nvidia-smi says who uses it and in which state "
            "it is");
  EXPECT_EQ(
      cuda::why_no_code({.ordinal = 1, .name = "NVIDIA L4", .major = 8, .minor = 9}, "90, 100"),
      "GPU 1 (NVIDIA L4) has compute capability 8.9, for which this build has no code (it has 90, 100): configure "
      "with -DCMAKE_CUDA_ARCHITECTURES=89");
}

TEST(Devices, AreToldApartByUuid) {
  EXPECT_EQ(cuda::uuid_text({0x0f, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xff}),
            "GPU-0f010203-0405-0607-0809-0a0b0c0d0eff");
  EXPECT_EQ(cuda::uuid_text({}), "") << "not known";
}

}  // namespace
}  // namespace tessera
