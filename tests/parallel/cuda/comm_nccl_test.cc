// What the tests of every transport do not ask of NCCL: its failures, and communicators that are made only when needed.
#include "parallel/comm_nccl.h"

#include <gtest/gtest.h>

#include <vector>

#include "parallel/comm_threads.h"
#include "parallel/device_link.h"
#include "tensor/check.h"

extern "C" void fake_nccl_break(const char* name);  // tests/support/grid/nccl.cc
extern "C" int fake_nccl_made(const char* name);

namespace tessera {
namespace {

struct Device1 {
  explicit Device1(Comm& world) : context({.device = Device::Cuda}), link(world, context, DeviceTransport::Nccl) {}
  Context context;
  DeviceLink link;
};

Tensor numbers(std::vector<float>& x) { return {x.data(), {static_cast<int64_t>(x.size())}, DType::F32, Device::Cuda}; }

TEST(Nccl, MakesACommunicatorAtAGroupsFirstCall) {
  run_ranks(2, [](Comm& world) {
    const Device1 device(world);
    const auto lazy = world.split(0, "lazy");
    world.barrier();
    EXPECT_EQ(fake_nccl_made("lazy"), 0);
    EXPECT_EQ(lazy->sum(1.0), 2.0);  // of the host
    EXPECT_EQ(fake_nccl_made("lazy"), 0);
    world.barrier();
    std::vector<float> x = {1, 2};
    lazy->all_reduce_sum(numbers(x));
    lazy->all_reduce_sum(numbers(x));
    EXPECT_EQ(x, (std::vector<float>{4, 8}));
    world.barrier();
    EXPECT_EQ(fake_nccl_made("lazy"), 2);  // one for each rank
    world.barrier();
  });
}

TEST(Nccl, NamesTheGroupThatFailed) {
  run_ranks(2, [](Comm& world) {
    const Device1 device(world);
    const auto group = world.split(0, "failing");
    std::vector<float> x = {1};
    group->all_reduce_sum(numbers(x));
    world.barrier();
    if (world.rank() == 0) fake_nccl_break("failing");
    world.barrier();
    try {
      group->all_reduce_sum(numbers(x));
      ADD_FAILURE() << "a call of a group that has failed";
    } catch (const IoError& error) {
      EXPECT_NE(std::string(error.what()).find("in group failing on rank"), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find("network error"), std::string::npos) << error.what();
    }
    world.barrier();
  });
}

}  // namespace
}  // namespace tessera
