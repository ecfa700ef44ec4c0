// What the tests of every transport do not ask of NCCL: its failures, and communicators that are made only when needed.
#include "parallel/comm/comm_nccl.h"

#include <gtest/gtest.h>

#include <chrono>
#include <exception>
#include <functional>
#include <string>
#include <vector>

#include "parallel/comm/comm_threads.h"
#include "parallel/comm/device_link.h"
#include "tensor/check.h"
#include "tests/support/device.h"

extern "C" void fake_nccl_break(const char* name);  // tests/support/grid/nccl.cc
extern "C" void fake_nccl_hold(const char* name);
extern "C" int fake_nccl_aborted();
extern "C" int fake_nccl_aborted_alone();
extern "C" int fake_nccl_made(const char* name);
extern "C" int fake_nccl_ids();
extern "C" int fake_nccl_splits();

namespace tessera {
namespace {

using testing::settle;
using testing::SharedVector;

struct Device1 {
  explicit Device1(Comm& world, double deadline_seconds = DeviceLink::kNoDeadline)
      : context({.device = Device::Cuda}),
        link(world, context, DeviceTransport::Nccl, DeviceSums::Fast, deadline_seconds) {}
  Context context;
  DeviceLink link;
};

Tensor numbers(SharedVector<float>& x) {
  return {x.data(), {static_cast<int64_t>(x.size())}, DType::F32, Device::Cuda};
}

TEST(Nccl, MakesACommunicatorAtAGroupsFirstCall) {
  run_ranks(2, [](Comm& world) {
    const Device1 device(world);
    const auto lazy = world.split(0, "lazy");
    world.barrier();
    EXPECT_EQ(fake_nccl_made("lazy"), 0);
    EXPECT_EQ(lazy->sum(1.0), 2.0);  // of the host
    EXPECT_EQ(fake_nccl_made("lazy"), 0);
    world.barrier();
    SharedVector<float> x = {1, 2};
    lazy->all_reduce_sum(numbers(x));
    lazy->all_reduce_sum(numbers(x));
    settle();
    EXPECT_EQ(x, (SharedVector<float>{4, 8}));
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
    SharedVector<float> row = {first}, column = {first}, other = {first}, both = {first};
    rows->all_reduce_sum(numbers(row));
    columns->all_reduce_sum(numbers(column));
    unused->all_reduce_sum(numbers(other));
    ends->all_reduce_sum(numbers(both));
    settle();
    EXPECT_EQ(row[0], world.rank() < 2 ? 1 : 5);
    EXPECT_EQ(column[0], world.rank() % 2 == 0 ? 2 : 4);
    EXPECT_EQ(other[0], column[0]);
    EXPECT_EQ(both[0], world.rank() % 3 == 0 ? 3 : world.rank());
    SharedVector<float> gathered(2);
    rows->all_gather(numbers(row), numbers(gathered));
    settle();
    EXPECT_EQ(gathered, (SharedVector<float>{row[0], row[0]}));
    world.barrier();
    EXPECT_EQ(fake_nccl_ids() - ids, 3) << "one for each half of what nobody expected";
    EXPECT_EQ(fake_nccl_splits() - splits, 10);
    world.connect_device();  // nothing is lacking
    EXPECT_EQ(fake_nccl_splits() - splits, 10);
    world.barrier();
  });
}

// NCCL connects two ranks when both have come to their first message: until then the call is under way. A rank that
// waits in it would never come to the call that its peer waits in.
TEST(Nccl, FirstMessagesDoNotWaitForEachOther) {
  constexpr int kRanks = 3, kTags = 3;
  run_ranks(kRanks, [](Comm& world) {
    const Device1 device(world);
    const int next = (world.rank() + 1) % kRanks, before = (world.rank() + kRanks - 1) % kRanks;
    std::vector<SharedVector<float>> out, in;
    for (int i = 0; i < 2 * kTags; ++i) {
      out.push_back({static_cast<float>(10 * world.rank() + i)});
      in.push_back({-1});
    }
    // Every rank has the tags in another order, and both neighbours as peers.
    std::vector<Request> requests;
    for (int i = 0; i < kTags; ++i) {
      const int tag = (i + world.rank()) % kTags;
      requests.push_back(world.receive(numbers(in[tag]), before, tag));
      requests.push_back(world.receive(numbers(in[kTags + tag]), next, tag));
    }
    for (int i = 0; i < kTags; ++i) {
      const int tag = (2 * i + world.rank()) % kTags;
      requests.push_back(world.send(numbers(out[tag]), next, tag));
      requests.push_back(world.send(numbers(out[kTags + tag]), before, tag));
    }
    for (Request& request : requests) request.wait();
    settle();
    for (int tag = 0; tag < kTags; ++tag) {
      EXPECT_EQ(in[tag][0], static_cast<float>(10 * before + tag));
      EXPECT_EQ(in[kTags + tag][0], static_cast<float>(10 * next + kTags + tag));
    }
    world.barrier();
  });
}

// Rank 1 comes to the sum only after its message has begun to move, which needs rank 0, which has come to the sum.
TEST(Nccl, ACallThatWaitsForOtherRanksServesMessages) {
  run_ranks(2, [](Comm& world) {
    const Device1 device(world);
    SharedVector<float> message = {world.rank() == 1 ? 7.0F : 0.0F}, sum = {1};
    Request request = world.rank() == 0 ? world.receive(numbers(message), 1) : world.send(numbers(message), 0);
    if (world.rank() == 1) request.wait();
    world.all_reduce_sum(numbers(sum));
    request.wait();
    settle();
    EXPECT_EQ(message[0], 7);
    EXPECT_EQ(sum[0], 2);
    world.barrier();
  });
}

// Rank 1 comes to the host's sum when it has all messages, and rank 0 goes there without waiting for those it has sent.
TEST(Nccl, ACollectiveOfTheHostServesMessages) {
  run_ranks(2, [](Comm& world) {
    const Device1 device(world);
    std::vector<SharedVector<float>> messages(3, SharedVector<float>(1));
    std::vector<Request> requests;
    for (int i = 0; i < 3; ++i) {
      if (world.rank() == 0) messages[i][0] = static_cast<float>(i + 1);
      requests.push_back(world.rank() == 0 ? world.send(numbers(messages[i]), 1)
                                           : world.receive(numbers(messages[i]), 0));
    }
    if (world.rank() == 1) {
      for (Request& request : requests) request.wait();
      settle();
    }
    EXPECT_EQ(world.sum(1.0), 2);
    for (Request& request : requests) request.wait();
    for (int i = 0; i < 3; ++i) EXPECT_EQ(messages[i][0], static_cast<float>(i + 1));
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
    SharedVector<float> x = {1};
    nested->all_reduce_sum(numbers(x));
    settle();
    EXPECT_EQ(x[0], 2);
    world.barrier();
  });
}

// Nothing needs it, but who asks for NCCL with one rank wants to see it work.
TEST(Nccl, MakesACommunicatorForARankAlone) {
  const int ids = fake_nccl_ids();
  run_ranks(1, [&](Comm& world) {
    const Device1 device(world);
    EXPECT_EQ(fake_nccl_ids() - ids, 0);
    world.connect_device();
    world.connect_device();
    EXPECT_EQ(fake_nccl_ids() - ids, 1);
    EXPECT_EQ(world.sum(3.0), 3.0);
  });
}

TEST(Nccl, NamesTheGroupThatFailed) {
  run_ranks(2, [](Comm& world) {
    const Device1 device(world);
    const auto group = world.split(0, "failing");
    SharedVector<float> x = {1};
    group->all_reduce_sum(numbers(x));
    settle();
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

// What is said of a run whose ranks wait for a group of this name, while memory is freed behind the exception.
std::string failure_of(const std::function<void(Comm& world, Comm& group, Context& context)>& body,
                       double deadline_seconds = DeviceLink::kNoDeadline) {
  try {
    run_ranks(2, [&](Comm& world) {
      Device1 device(world, deadline_seconds);
      const auto group = world.split(0, "failing");
      SharedVector<float> x = {1};
      const AbandonOnFailure abandon(device.link);  // before x goes
      group->all_reduce_sum(numbers(x));
      device.context.synchronize();
      world.barrier();
      body(world, *group, device.context);
    });
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Nccl, AWaitOfTheHostFindsWhatFailsUnderWay) {
  const int aborted = fake_nccl_aborted(), alone = fake_nccl_aborted_alone();
  const std::string failure = failure_of([](Comm& world, Comm& group, Context& context) {
    SharedVector<float> x = {1};
    world.barrier();
    group.all_reduce_sum(numbers(x));
    world.barrier();
    if (world.rank() == 0) fake_nccl_break("failing");
    world.barrier();
    context.synchronize();
  });
  EXPECT_NE(failure.find("in group failing on rank"), std::string::npos) << failure;
  EXPECT_NE(failure.find("network error"), std::string::npos) << failure;
  EXPECT_EQ(fake_nccl_aborted() - aborted, 2) << "before memory was freed, which waits for what is queued";
  EXPECT_EQ(fake_nccl_aborted_alone(), alone) << "one abort may wait for what another one ends";
}

TEST(Nccl, ACallThatComesToNoEndIsNamedAfterTheDeadline) {
  const auto start = std::chrono::steady_clock::now();
  const std::string failure = failure_of(
      [](Comm& world, Comm& group, Context& context) {
        if (world.rank() == 0) fake_nccl_hold("failing");
        world.barrier();
        SharedVector<float> x = {1};
        group.all_reduce_sum(numbers(x));
        context.synchronize();
      },
      0.2);
  EXPECT_NE(failure.find("all_reduce in group failing on rank"), std::string::npos) << failure;
  EXPECT_NE(failure.find("another rank of the group has stopped"), std::string::npos) << failure;
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(200));
}

// The other rank never comes to the call: neither NCCL nor the deadline says so.
TEST(Nccl, ARanksFailureReachesThoseThatWaitForTheDevice) {
  const std::string failure = failure_of([](Comm& world, Comm& group, Context& context) {
    if (world.rank() == 1) throw UsageError("a rank's own trouble");
    SharedVector<float> x = {1};
    group.all_reduce_sum(numbers(x));
    context.synchronize();
  });
  EXPECT_EQ(failure, "a rank's own trouble");
}

TEST(Nccl, ARanksFailureReachesThoseThatWaitForItsMessage) {
  const std::string failure = failure_of([](Comm& world, Comm& group, Context&) {
    SharedVector<float> first = {1}, second = {2};
    if (world.rank() == 1) {
      group.send(numbers(first), 0).wait();
      throw UsageError("a rank's own trouble");
    }
    group.receive(numbers(first), 1).wait();
    group.receive(numbers(second), 1, 5).wait();  // of a tag that has no communicator yet
  });
  EXPECT_EQ(failure, "a rank's own trouble");
}

}  // namespace
}  // namespace tessera
