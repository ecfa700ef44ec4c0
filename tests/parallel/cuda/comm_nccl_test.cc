// What the tests of every transport do not ask of NCCL: its failures, and communicators that are made only when needed.
#include "parallel/comm_nccl.h"

#include <gtest/gtest.h>

#include <vector>

#include "parallel/comm_threads.h"
#include "parallel/device_link.h"
#include "tensor/check.h"

extern "C" void fake_nccl_break(const char* name);  // tests/support/grid/nccl.cc
extern "C" int fake_nccl_made(const char* name);
extern "C" int fake_nccl_ids();
extern "C" int fake_nccl_splits();

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

// Rows and columns of four ranks.
TEST(Nccl, SplitsTheWorldForTheGroupsThatExpectIt) {
  const int ids = fake_nccl_ids(), splits = fake_nccl_splits();
  run_ranks(4, [&](Comm& world) {
    const Device1 device(world);
    const auto rows = world.split(world.rank() / 2, "rows"), columns = world.split(world.rank() % 2, "columns");
    const auto unused = world.split(world.rank() % 2, "unused"), alone = world.split(world.rank(), "alone");
    const auto ends =
        world.split(world.rank() % 3 == 0 ? 0 : world.rank(), "ends");  // ranks 0 and 3, and 1 and 2 alone
    rows->expect_device_tensors();
    alone->expect_device_tensors();
    if (world.rank() == 2) columns->expect_device_tensors();
    if (world.rank() == 3) ends->expect_device_tensors();
    world.connect_device();
    world.barrier();
    EXPECT_EQ(fake_nccl_made("rows"), 4);
    EXPECT_EQ(fake_nccl_made("columns"), 4);
    EXPECT_EQ(fake_nccl_made("ends"), 2);
    EXPECT_EQ(fake_nccl_made("unused") + fake_nccl_made("alone"), 0);
    EXPECT_EQ(fake_nccl_ids() - ids, 1) << "the world's own";
    EXPECT_EQ(fake_nccl_splits() - splits, 10);
    world.barrier();

    const auto first = static_cast<float>(world.rank());
    std::vector<float> row = {first}, column = {first}, other = {first}, both = {first};
    rows->all_reduce_sum(numbers(row));
    columns->all_reduce_sum(numbers(column));
    unused->all_reduce_sum(numbers(other));
    ends->all_reduce_sum(numbers(both));
    EXPECT_EQ(row[0], world.rank() < 2 ? 1 : 5);
    EXPECT_EQ(column[0], world.rank() % 2 == 0 ? 2 : 4);
    EXPECT_EQ(other[0], column[0]);
    EXPECT_EQ(both[0], world.rank() % 3 == 0 ? 3 : world.rank());
    std::vector<float> gathered(2);
    rows->all_gather(numbers(row), numbers(gathered));
    EXPECT_EQ(gathered, (std::vector<float>{row[0], row[0]}));
    world.barrier();
    EXPECT_EQ(fake_nccl_ids() - ids, 3) << "one for each half of what nobody expected";
    EXPECT_EQ(fake_nccl_splits() - splits, 10);
    world.connect_device();  // nothing is lacking
    EXPECT_EQ(fake_nccl_splits() - splits, 10);
    world.barrier();
  });
}

// A group of a group has no color in the world.
TEST(Nccl, MakesOtherGroupsByThemselves) {
  run_ranks(4, [](Comm& world) {
    const Device1 device(world);
    const auto half = world.split(world.rank() / 2, "half");
    const auto nested = half->split(0, "nested");
    nested->expect_device_tensors();
    world.connect_device();
    world.barrier();
    EXPECT_EQ(fake_nccl_made("nested"), 0);
    world.barrier();
    std::vector<float> x = {1};
    nested->all_reduce_sum(numbers(x));
    EXPECT_EQ(x[0], 2);
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
