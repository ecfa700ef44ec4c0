// Messages between two ranks: order, tags, many at once. Runs over threads and, under mpirun, over MPI.
#include <gtest/gtest.h>

#include <cstddef>
#include <numeric>
#include <thread>
#include <vector>

#include "parallel/comm/comm.h"
#include "tests/support/device.h"
#include "tests/support/ranks.h"

namespace tessera {
namespace {

using testing::run_ranks;
using testing::settle;
using testing::SharedVector;

Tensor view(SharedVector<int32_t>& x) {
  return {x.data(), Shape{static_cast<int64_t>(x.size())}, DType::I32, testing::kDevice};
}

SharedVector<int32_t> pattern(int64_t size, int from, int number) {
  SharedVector<int32_t> x(size);
  std::iota(x.begin(), x.end(), 1000 * from + 10 * number);
  return x;
}

class Messages : public ::testing::TestWithParam<int> {
 protected:
  int n() const { return GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(Comm, Messages, ::testing::Values(1, 2, 3, 4, 8));

TEST_P(Messages, GoRoundARing) {
  run_ranks(n(), [&](Comm& world) {
    const int next = (world.rank() + 1) % n(), before = (world.rank() + n() - 1) % n();
    for (int64_t size : {0, 1, 100, 300000}) {
      SharedVector<int32_t> out = pattern(size, world.rank(), 0), in(size, -1);
      Request sent = world.send(view(out), next);
      Request received = world.receive(view(in), before);
      sent.wait();
      received.wait();
      settle();
      EXPECT_EQ(in, pattern(size, before, 0));
      received.wait();  // again: nothing happens
    }
    const int64_t bytes = 4 * (0 + 1 + 100 + 300000);
    EXPECT_EQ(world.traffic().bytes_of(Collective::Send), n() == 1 ? 0 : bytes);
    EXPECT_EQ(world.traffic().calls_of(Collective::Send), 4);
  });
}

// Who asks whether a message is over leaves it as it is, for wait().
TEST_P(Messages, OfTheHostSayWhetherTheyAreOver) {
  run_ranks(n(), [&](Comm& world) {
    const int next = (world.rank() + 1) % n(), before = (world.rank() + n() - 1) % n();
    const int64_t size = 100;
    std::vector<int32_t> out(size, world.rank()), in(size, -1);
    const auto bytes = static_cast<int64_t>(size * sizeof(int32_t));
    Request::Pending* sends =
        world.host_backend().do_send(reinterpret_cast<const std::byte*>(out.data()), bytes, next, CommBackend::kTags);
    Request::Pending* receives =
        world.host_backend().do_receive(reinterpret_cast<std::byte*>(in.data()), bytes, before, CommBackend::kTags);
    Request sent(sends), received(receives);
    while (!receives->over() || !sends->over()) std::this_thread::yield();
    EXPECT_TRUE(receives->over() && sends->over()) << "still";
    EXPECT_EQ(in, std::vector<int32_t>(size, before));
    received.wait();
    sent.wait();
  });
}

TEST_P(Messages, OfOneTagArriveInOrderAndTagsAreApart) {
  run_ranks(n(), [&](Comm& world) {
    constexpr int kMany = 40;
    const int next = (world.rank() + 1) % n(), before = (world.rank() + n() - 1) % n();
    std::vector<SharedVector<int32_t>> out, in;
    for (int i = 0; i < kMany; ++i) {
      out.push_back(pattern(50 + i % 3 * 20000, world.rank(), i));
      in.emplace_back(out.back().size(), -1);
    }
    std::vector<Request> requests;
    for (int i = 0; i < kMany; ++i) requests.push_back(world.send(view(out[i]), next, i % 2 == 0 ? 5 : 32766));
    // Odd ones first: a tag does not wait for another. Within a tag, in order.
    for (int parity : {1, 0}) {
      for (int i = parity; i < kMany; i += 2) {
        requests.push_back(world.receive(view(in[i]), before, parity == 0 ? 5 : 32766));
      }
    }
    // Waited for backwards: the order of waiting does not matter.
    for (auto it = requests.rbegin(); it != requests.rend(); ++it) it->wait();
    settle();
    for (int i = 0; i < kMany; ++i) ASSERT_EQ(in[i], pattern(in[i].size(), before, i)) << "message " << i;
  });
}

TEST_P(Messages, GroupsDoNotMix) {
  run_ranks(n(), [&](Comm& world) {
    const auto twin = world.split(0, "twin");
    const int next = (world.rank() + 1) % n(), before = (world.rank() + n() - 1) % n();
    SharedVector<int32_t> a = {1}, b = {2}, a_in = {0}, b_in = {0};
    Request sends[] = {world.send(view(a), next), twin->send(view(b), next)};
    Request receives[] = {twin->receive(view(b_in), before), world.receive(view(a_in), before)};
    for (Request& request : sends) request.wait();
    for (Request& request : receives) request.wait();
    settle();
    EXPECT_EQ(a_in[0], 1);
    EXPECT_EQ(b_in[0], 2);
  });
}

TEST_P(Messages, AreFinishedByTheDestructorAndByAssignment) {
  run_ranks(n(), [&](Comm& world) {
    const int next = (world.rank() + 1) % n(), before = (world.rank() + n() - 1) % n();
    SharedVector<int32_t> out = {world.rank()}, in = {-1}, more = {-1};
    {
      const Request sent = world.send(view(out), next);
      const Request received = world.receive(view(in), before);
    }
    settle();
    EXPECT_EQ(in[0], before);
    in[0] = -1;
    const Request again = world.send(view(out), next), and_again = world.send(view(out), next);
    Request received = world.receive(view(in), before);
    received = world.receive(view(more), before);
    settle();
    EXPECT_EQ(in[0], before);
    received.wait();
    settle();
    EXPECT_EQ(more[0], before);
  });
}

TEST_P(Messages, BesideCollectives) {
  run_ranks(n(), [&](Comm& world) {
    const int next = (world.rank() + 1) % n(), before = (world.rank() + n() - 1) % n();
    SharedVector<int32_t> out = pattern(100000, world.rank(), 1), in(100000), x(100000, 1);
    Request received = world.receive(view(in), before, 3);
    Request sent = world.send(view(out), next, 3);
    world.all_reduce_sum(view(x));
    world.barrier();
    sent.wait();
    received.wait();
    settle();
    EXPECT_EQ(in, pattern(100000, before, 1));
    EXPECT_EQ(x[99999], n());
  });
}

}  // namespace
}  // namespace tessera
