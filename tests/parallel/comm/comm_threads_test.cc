// Failures: a rank that fails wakes all others, and a hang has a name.
#include "parallel/comm/comm_threads.h"

#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <vector>

#include "tests/support/ranks.h"

namespace tessera {
namespace {

class ThreadRanks : public ::testing::Test {
 protected:
  void SetUp() override {
    if (testing::under_mpi()) GTEST_SKIP() << "threads only";
  }
};

// What the call throws, as text.
template <class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const std::exception& e) {
    return e.what();
  }
  return "no error";
}

// Runs `call` on all ranks of four but one, which throws instead, and counts those woken with its message.
void expect_woken(const std::function<void(Comm&, Comm&)>& call) {
  std::atomic<int> woken = 0;
  const std::string error = error_of([&] {
    run_ranks(4, [&](Comm& world) {
      const auto pair = world.split(world.rank() / 2, "pair");
      if (world.rank() == 2) throw DataError("shard 17 is gone");
      try {
        call(world, *pair);
      } catch (const PeerFailed& e) {
        EXPECT_STREQ(e.what(), "rank 2 failed: shard 17 is gone");
        ++woken;
        throw;
      }
    });
  });
  EXPECT_EQ(error, "shard 17 is gone");
  EXPECT_EQ(woken, 3);
}

TEST_F(ThreadRanks, AreWokenInEveryCollective) {
  expect_woken([](Comm& world, Comm&) { world.barrier(); });
  expect_woken([](Comm& world, Comm&) { world.sum(1.0); });
  expect_woken([](Comm& world, Comm&) { world.split(0, "again"); });
  expect_woken([](Comm& world, Comm&) {
    std::vector<float> x(8);
    world.all_reduce_sum(Tensor(std::span<float>(x), Shape{8}));
  });
}

TEST_F(ThreadRanks, AreWokenInStartedCollectives) {
  expect_woken([](Comm& world, Comm&) {
    std::vector<float> part(2), whole(8);
    world.start_all_gather(Tensor(std::span<float>(part), Shape{2}), Tensor(std::span<float>(whole), Shape{8})).wait();
  });
  expect_woken([](Comm& world, Comm&) {
    std::vector<float> part(2), whole(8);
    const Tensor p(std::span<float>(part), Shape{2}), w(std::span<float>(whole), Shape{8});
    Request sum = world.start_reduce_scatter_sum(w, p);
    world.barrier();  // the request is abandoned
  });
}

TEST_F(ThreadRanks, AStartedCollectiveOfAFailingRankIsWithdrawn) {
  // Rank 0's memory is gone when the last of its peers starts: nothing may be read from it or written into it.
  for (int round = 0; round < 20; ++round) {
    const std::string error = error_of([&] {
      run_ranks(3, [&](Comm& world) {
        std::vector<float> part(1 << 14, 1.0f), whole(3 << 14, 1.0f);
        const Tensor p(std::span<float>(part), Shape{1 << 14}), w(std::span<float>(whole), Shape{3 << 14});
        const Request gather = world.start_all_gather(p, w);
        if (world.rank() == 0) throw DataError("gone");
        Request next = world.start_all_gather(p, w);
        next.wait();
        world.barrier();
      });
    });
    EXPECT_EQ(error, "gone");
  }
}

TEST_F(ThreadRanks, AWaitNeedsPeersToHaveStartedOnly) {
  run_ranks(2, [&](Comm& world) {
    std::vector<float> part(100, 1.0f + world.rank()), whole(200), message(1);
    const Tensor p(std::span<float>(part), Shape{100}), w(std::span<float>(whole), Shape{200});
    Request gather = world.start_all_gather(p, w);
    if (world.rank() == 1) world.receive(Tensor(std::span<float>(message), Shape{1}), 0).wait();
    gather.wait();  // rank 1 comes here only after rank 0's wait
    if (world.rank() == 0) world.send(Tensor(std::span<float>(message), Shape{1}), 1).wait();
    EXPECT_EQ(whole[0], 1.0f);
    EXPECT_EQ(whole[199], 2.0f);
  });
}

TEST_F(ThreadRanks, StartedCollectivesThatDifferAreAnErrorThatNamesBoth) {
  const std::string error = error_of([] {
    run_ranks(2, [](Comm& world) {
      std::vector<float> part(4), whole(8);
      const Tensor p(std::span<float>(part), Shape{4}), w(std::span<float>(whole), Shape{8});
      (world.rank() == 0 ? world.start_all_gather(p, w) : world.start_reduce_scatter_sum(w, p)).wait();
    });
  });
  EXPECT_NE(error.find("calls start_all_gather of 16 bytes"), std::string::npos) << error;
  EXPECT_NE(error.find("rank 1 calls start_reduce_scatter_sum"), std::string::npos) << error;
  const std::string forgotten = error_of([] {
    run_ranks(2, [](Comm& world) {
      std::vector<float> part(4), whole(8);
      const Tensor p(std::span<float>(part), Shape{4}), w(std::span<float>(whole), Shape{8});
      if (world.rank() == 0) world.start_all_gather(p, w).wait();
    });
  });
  EXPECT_NE(forgotten.find("rank 0 waits in start_all_gather of group world"), std::string::npos) << forgotten;
}

TEST_F(ThreadRanks, AreWokenInMessagesAndInGroupsThatTheFailedOneIsNotIn) {
  expect_woken([](Comm& world, Comm&) {
    std::vector<float> x(8);
    world.receive(Tensor(std::span<float>(x), Shape{8}), 2).wait();
  });
  expect_woken([](Comm& world, Comm&) {
    std::vector<float> x(8);
    world.send(ConstTensor(std::span<const float>(x), Shape{8}), 2).wait();
  });
  // Ranks 0 and 1 are a group without rank 2, and go on until the news reaches them.
  expect_woken([](Comm&, Comm& pair) {
    for (;;) pair.barrier();
  });
}

TEST_F(ThreadRanks, TheLowestOfSeveralFailuresIsReported) {
  EXPECT_EQ(error_of([] {
              run_ranks(5, [](Comm& world) {
                world.barrier();
                if (world.rank() >= 3) throw UsageError("no " + std::to_string(world.rank()));
              });
            }),
            "no 3");
  EXPECT_THROW(run_ranks(2, [](Comm&) { throw 5; }), int);
}

TEST_F(ThreadRanks, ADifferentCallIsAnErrorThatNamesBoth) {
  const std::string error = error_of([] {
    run_ranks(3, [](Comm& world) {
      if (world.rank() == 1)
        world.sum(1.0);
      else
        world.barrier();
    });
  });
  EXPECT_NE(error.find("rank 0 calls barrier"), std::string::npos) << error;
  EXPECT_NE(error.find("rank 1 calls all_gather of 8 bytes"), std::string::npos) << error;
}

TEST_F(ThreadRanks, DifferentSizesAreAnError) {
  const auto reduce = [](int64_t from_one) {
    run_ranks(2, [&](Comm& world) {
      std::vector<float> x(world.rank() == 0 ? 4 : from_one);
      world.all_reduce_sum(Tensor(std::span<float>(x), Shape{static_cast<int64_t>(x.size())}));
    });
  };
  EXPECT_NO_THROW(reduce(4));
  EXPECT_THROW(reduce(5), InternalError);
  const auto message = [](int64_t from_one) {
    run_ranks(2, [&](Comm& world) {
      std::vector<float> x(world.rank() == 0 ? 4 : from_one);
      const Tensor view(std::span<float>(x), Shape{static_cast<int64_t>(x.size())});
      (world.rank() == 0 ? world.send(view, 1) : world.receive(view, 0)).wait();
    });
  };
  EXPECT_NO_THROW(message(4));
  EXPECT_THROW(message(5), InternalError);
}

TEST_F(ThreadRanks, ADeadlockSaysWhoWaitsForWhat) {
  const std::string ended = error_of([] {
    run_ranks(3, [](Comm& world) {
      if (world.rank() != 1) world.barrier();
    });
  });
  EXPECT_NE(ended.find("rank 0 waits in barrier of group world"), std::string::npos) << ended;
  EXPECT_NE(ended.find("rank 1 has ended"), std::string::npos) << ended;

  // Both wait for their send before they post the receive.
  const std::string crossed = error_of([] {
    run_ranks(2, [](Comm& world) {
      std::vector<float> x(4);
      const Tensor view(std::span<float>(x), Shape{4});
      world.send(view, 1 - world.rank()).wait();
      world.receive(view, 1 - world.rank()).wait();
    });
  });
  EXPECT_NE(crossed.find("rank 1 waits in send of group world"), std::string::npos) << crossed;
}

TEST_F(ThreadRanks, AMessageOfAFailingRankIsWithdrawn) {
  // The tensor of the abandoned receive is gone when the peer sends: nothing may be written into it.
  const std::string error = error_of([] {
    run_ranks(2, [](Comm& world) {
      std::vector<float> x(1 << 16, 1.0f);
      const Tensor view(std::span<float>(x), Shape{1 << 16});
      if (world.rank() == 0) {
        const Request received = world.receive(view, 1);
        throw DataError("gone");
      }
      for (;;) world.send(view, 0).wait();
    });
  });
  EXPECT_EQ(error, "gone");
}

TEST_F(ThreadRanks, ManyRoundsWithFailuresAtRandomTimesEnd) {
  for (int round = 0; round < 50; ++round) {
    EXPECT_THROW(run_ranks(6,
                           [&](Comm& world) {
                             const auto half = world.split(world.rank() % 2, "half");
                             std::vector<float> x(1 << 12, 1.0f);
                             const Tensor view(std::span<float>(x), Shape{1 << 12});
                             for (int i = 0;; ++i) {
                               if (world.rank() == round % 6 && i == round) throw DataError("now");
                               Request sum = half->start_reduce_scatter_sum(view.rows(0, 30), view.rows(40, 50));
                               half->all_reduce_sum(view.rows(64, 1 << 12));
                               Request received = half->receive(view.rows(50, 54), (half->rank() + 1) % 3);
                               Request sent = half->send(view.rows(54, 58), (half->rank() + 2) % 3);
                             }
                           }),
                 DataError);
  }
}

}  // namespace
}  // namespace tessera
