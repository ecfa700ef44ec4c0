// The main of the tests of communication between tensors on the emulated device: by --transport=staged, nccl, or
// nccl-rank-order.
#include <gtest/gtest.h>

#include <cstdio>
#include <string>

#include "parallel/comm/device_link.h"
#include "tests/support/ranks.h"

using tessera::Comm, tessera::Context, tessera::Device, tessera::DeviceLink, tessera::DeviceSums,
    tessera::DeviceTransport;

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const std::string transport = argc == 2 ? argv[1] : "";
  const bool staged = transport == "--transport=staged", rank_order = transport == "--transport=nccl-rank-order";
  if (!staged && !rank_order && transport != "--transport=nccl") {
    std::fprintf(stderr, "say --transport=staged, nccl, or nccl-rank-order\n");
    return 2;
  }
  tessera::testing::wrap_ranks([staged, rank_order](Comm& world, const std::function<void(Comm&)>& body) {
    Context context({.device = Device::Cuda});
    const DeviceLink link(world, context, staged ? DeviceTransport::Staged : DeviceTransport::Nccl,
                          rank_order ? DeviceSums::RankOrder : DeviceSums::Fast);
    tessera::testing::set_linked_context(&context);
    body(world);
  });
  return RUN_ALL_TESTS();
}
