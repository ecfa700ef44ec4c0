// Collectives that are started: the bits of the blocking ones, whatever runs between start and wait. Runs over threads
// and, under mpirun, over MPI.
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstring>
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

// Values of very different size and either sign: another order of addition gives other bits.
template <class T>
SharedVector<T> values(int rank, int64_t count, int salt = 0) {
  constexpr int64_t kValues = 1009;
  static const std::vector<double> table = [] {
    std::vector<double> numbers(kValues);
    for (int64_t i = 0; i < kValues; ++i)
      numbers[i] = std::sin(1.0 + 3.7 * static_cast<double>(i)) * std::pow(10.0, i % 7);
    return numbers;
  }();
  SharedVector<T> x(count);
  for (int64_t i = 0; i < count; ++i)
    x[i] = static_cast<T>(static_cast<Acc<T>>(table[(i + 131 * rank + 17 * salt) % kValues]));
  return x;
}

template <class T>
Tensor view(SharedVector<T>& x) {
  return {x.data(), Shape{static_cast<int64_t>(x.size())}, dtype_of<T>(), testing::kDevice};
}

template <class T>
bool same_bits(const SharedVector<T>& a, const SharedVector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

// One collective of each kind: its operands, and what the blocking call makes of them.
template <class T>
struct Pair {
  Pair(Comm& world, int64_t count, int salt = 0)
      : part(values<T>(world.rank(), count, salt)),
        whole(values<T>(world.rank(), count * world.size(), salt + 1)),
        gathered(whole.size()),
        sum(part.size()),
        blocking_gathered(whole.size()),
        blocking_sum(part.size()) {
    world.all_gather(view(part), view(blocking_gathered));
    world.reduce_scatter_sum(view(whole), view(blocking_sum));
  }
  Request start_gather(Comm& world) { return world.start_all_gather(view(part), view(gathered)); }
  Request start_sum(Comm& world) { return world.start_reduce_scatter_sum(view(whole), view(sum)); }
  void check() const {
    settle();
    EXPECT_TRUE(same_bits(gathered, blocking_gathered)) << part.size();
    EXPECT_TRUE(same_bits(sum, blocking_sum)) << part.size();
  }

  SharedVector<T> part, whole, gathered, sum, blocking_gathered, blocking_sum;
};

class Started : public ::testing::TestWithParam<int> {
 protected:
  int n() const { return GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(Comm, Started, ::testing::Values(1, 2, 3, 4, 7));

TEST_P(Started, MakeTheBitsOfTheBlockingCalls) {
  run_ranks(n(), [&](Comm& world) {
    const auto check = [&]<class T>(T) {
      for (int64_t count : {0, 1, 7, 4001, 280009}) {  // none, small, large, several chunks of a reduction
        Pair<T> pair(world, count);
        Request gather = pair.start_gather(world);
        gather.wait();
        Request sum = pair.start_sum(world);
        sum.wait();
        EXPECT_FALSE(sum.pending());
        pair.check();
        // In place: a part that is its own place in the whole.
        SharedVector<T> all(count * n());
        const Tensor own = view(all).rows(world.rank() * count, (world.rank() + 1) * count);
        if (count > 0) std::memcpy(own.data(), pair.part.data(), count * sizeof(T));
        world.start_all_gather(own, view(all)).wait();
        settle();
        EXPECT_TRUE(same_bits(all, pair.blocking_gathered));
        all = pair.whole;
        world.start_reduce_scatter_sum(view(all), own).wait();
        settle();
        EXPECT_TRUE(count == 0 || std::memcmp(own.data(), pair.blocking_sum.data(), count * sizeof(T)) == 0);
      }
    };
    check(double{});
    check(float{});
    check(bf16{});
    check(int32_t{});
  });
}

TEST_P(Started, RunBesideEachOtherAndEverythingElse) {
  run_ranks(n(), [&](Comm& world) {
    const auto twin = world.split(0, "twin");
    for (int64_t count : {5, 3000, 300007}) {
      Pair<float> a(world, count), b(world, count + 1, 10), c(*twin, count, 20);
      SharedVector<float> reduced(2 * count, 1.0f), small(3, 1.0f), out(count, world.rank()), in(count);
      const int next = (world.rank() + 1) % n(), before = (world.rank() + n() - 1) % n();
      Request requests[] = {a.start_gather(world), a.start_sum(world),    b.start_sum(world),
                            c.start_sum(*twin),    b.start_gather(world), c.start_gather(*twin)};
      Request received = world.receive(view(in), before), sent = world.send(view(out), next);
      world.all_reduce_sum(view(reduced));
      world.all_reduce_sum(view(small));
      Pair<double> between(world, count);
      between.start_sum(world).wait();
      between.start_gather(world).wait();
      between.check();
      EXPECT_EQ(world.sum(1.0), n());
      world.barrier();
      for (Request& request : requests) request.wait();
      received.wait();
      sent.wait();
      for (Pair<float>* pair : {&a, &b, &c}) pair->check();
      EXPECT_EQ(reduced.back(), n());
      EXPECT_EQ(small.back(), n());
      EXPECT_EQ(in.back(), before);
    }
  });
}

TEST_P(Started, MayBeWaitedForInAnotherOrderAndByTheDestructor) {
  run_ranks(n(), [&](Comm& world) {
    for (int64_t count : {9, 300007}) {
      Pair<float> a(world, count), b(world, count, 10);
      {
        Request first = a.start_sum(world), second = b.start_gather(world), third = a.start_gather(world);
        third.wait();
        const Request last = b.start_sum(world);
        first.wait();
      }
      a.check();
      b.check();
    }
  });
}

TEST_P(Started, FromRanksThatComeAtOtherTimes) {
  run_ranks(n(), [&](Comm& world) {
    for (int late = 0; late < n(); ++late) {
      Pair<float> pair(world, 20011, late);
      const auto pause = [&](bool me) {
        if (me) std::this_thread::sleep_for(std::chrono::milliseconds(5));
      };
      pause(world.rank() == late);
      Request gather = pair.start_gather(world), sum = pair.start_sum(world);
      pause(world.rank() != late);
      gather.wait();
      sum.wait();
      pair.check();
      // What was read may be written again at once.
      std::fill(pair.part.begin(), pair.part.end(), 0.0f);
      std::fill(pair.whole.begin(), pair.whole.end(), 0.0f);
    }
  });
}

TEST_P(Started, CountBytesOnceAndOnlyTheTimeInThem) {
  run_ranks(n(), [&](Comm& world) {
    using Clock = std::chrono::steady_clock;
    const int64_t count = 50000, share = count * 4 * (n() - 1);
    Pair<float> pair(world, count);
    const Traffic before = world.traffic();
    const Clock::time_point start = Clock::now();
    Request gather = pair.start_gather(world), sum = pair.start_sum(world);
    const Clock::duration starting = Clock::now() - start;
    const Traffic started = world.traffic() - before;
    EXPECT_EQ(started.bytes_of(Collective::AllGather), share);
    EXPECT_EQ(started.bytes_of(Collective::ReduceScatter), share);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    const Clock::time_point then = Clock::now();
    gather.wait();
    sum.wait();
    const Clock::duration waiting = Clock::now() - then;
    const Traffic spent = world.traffic() - before;
    EXPECT_EQ(spent.calls_of(Collective::AllGather), 1);
    EXPECT_EQ(spent.calls_of(Collective::ReduceScatter), 1);
    EXPECT_EQ(spent.total_bytes(), 2 * share);
    EXPECT_LE(spent.seconds, std::chrono::duration<double>(starting + waiting).count() + 1e-9);
    if (n() > 1) {
      EXPECT_GT(started.seconds, 0);
      EXPECT_GT(spent.seconds, started.seconds);  // waiting counts
    }
  });
}

TEST_P(Started, RefuseWhatDoesNotFit) {
  run_ranks(n(), [&](Comm& world) {
    SharedVector<float> part(2), whole(2 * n() + 1);
    EXPECT_THROW((void)world.start_all_gather(view(part), view(whole)), InternalError);
    EXPECT_THROW((void)world.start_reduce_scatter_sum(view(whole), view(part)), InternalError);
    // Overlaps by one element: neither apart nor in place.
    const Tensor all = view(whole).rows(0, 2 * n());
    const Tensor off = view(whole).rows(2 * world.rank() + 1, 2 * world.rank() + 3);
    EXPECT_THROW((void)world.start_all_gather(off, all), InternalError);
    EXPECT_THROW((void)world.start_reduce_scatter_sum(all, off), InternalError);
    world.barrier();
  });
}

}  // namespace
}  // namespace tessera
