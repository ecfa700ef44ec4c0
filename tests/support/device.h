// Where the tests of operations run: the same sources are built for the CPU, for the CUDA kernels on the grid emulator
// (tests/support/grid), and for a GPU.
#pragma once

#include <cstddef>

#include "tensor/context.h"

namespace tessera::testing {

#if defined(TESSERA_TEST_CUDA)
constexpr Device kDevice = Device::Cuda;
#else
constexpr Device kDevice = Device::Cpu;
#endif

// The same options for a context on the device under test.
inline Context::Options on_device(Context::Options options) {
  options.device = kDevice;
  return options;
}

}  // namespace tessera::testing
