// The main of the tests of communication between tensors on the emulated device: by --transport=staged or nccl.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>

#include "parallel/device_link.h"
#include "tests/support/ranks.h"

using tessera::Comm, tessera::Context, tessera::Device, tessera::DeviceLink, tessera::DeviceTransport;

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const bool nccl = argc == 2 && std::strcmp(argv[1], "--transport=nccl") == 0;
  if (!nccl && (argc != 2 || std::strcmp(argv[1], "--transport=staged") != 0)) {
    std::fprintf(stderr, "say --transport=staged or --transport=nccl\n");
    return 2;
  }
  tessera::testing::wrap_ranks([nccl](Comm& world, const std::function<void(Comm&)>& body) {
    const Context context({.device = Device::Cuda});
    const DeviceLink link(world, context, nccl ? DeviceTransport::Nccl : DeviceTransport::Staged);
    body(world);
  });
  return RUN_ALL_TESTS();
}
