// After the first round, collectives and messages allocate nothing: a training step may call them freely.
#include <gtest/gtest.h>

#include <vector>

#include "parallel/comm/comm.h"
#include "tests/support/allocations.h"
#include "tests/support/ranks.h"

namespace tessera {
namespace {

// Rank 0's view of the counter, which all threads share: between two barriers no rank does anything else.
TEST(Comm, AllocatesNothingAfterTheFirstRound) {
  for (int n : {1, 2, 4}) {
    testing::run_ranks(n, [&](Comm& world) {
      const auto group = world.split(0, "a group with a name too long to be stored in place");
      std::vector<float> part(30000), sum(30000), whole(30000 * n), other(30000 * n);
      const Tensor p(std::span<float>(part), Shape{30000}), q(std::span<float>(sum), Shape{30000}),
          w(std::span<float>(whole), Shape{30000 * n}), o(std::span<float>(other), Shape{30000 * n});
      const int next = (group->rank() + 1) % n, before = (group->rank() + n - 1) % n;
      const auto round = [&] {
        group->all_gather(p, w);
        group->reduce_scatter_sum(w, p);
        Request gathered = group->start_all_gather(p, w), summed = group->start_reduce_scatter_sum(o, q);
        gathered.wait();
        summed.wait();
        group->all_reduce_sum(w);
        group->all_reduce_sum(w.rows(0, 10));
        group->all_reduce_max(w);
        group->all_to_all(w, o);
        group->broadcast(w, n - 1);
        group->sum(1.0);
        Request received[] = {group->receive(p, before, 1), group->receive(w.rows(0, 100), before, 2)};
        Request sent[] = {group->send(o.rows(0, 30000), next, 1), group->send(o.rows(0, 100), next, 2)};
        for (Request& request : sent) request.wait();
        for (Request& request : received) request.wait();
      };
      for (int warm_up = 0; warm_up < 3; ++warm_up) round();
      group->barrier();
      const int64_t calls = testing::allocations();
      group->barrier();
      for (int i = 0; i < 5; ++i) round();
      group->barrier();
      EXPECT_EQ(testing::allocations() - calls, 0);
      group->barrier();
    });
  }
}

}  // namespace
}  // namespace tessera
