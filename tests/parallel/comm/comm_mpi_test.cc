// What is MPI's alone: bitwise agreement with threads, calls larger than MPI can count, staging memory.
#include "parallel/comm/comm_mpi.h"

#include <gtest/gtest.h>
#include <mpi.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "parallel/comm/comm_threads.h"
#include "tests/support/ranks.h"

namespace tessera {
namespace {

class MpiRanks : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!testing::under_mpi()) GTEST_SKIP() << "under mpirun only";
  }
};

// What Open MPI made of it, asked through MPI's tool interface.
TEST_F(MpiRanks, YieldWhileTheyWait) {
  int provided = 0, index = 0;
  ASSERT_EQ(MPI_T_init_thread(MPI_THREAD_SINGLE, &provided), MPI_SUCCESS);
  if (MPI_T_cvar_get_index("mpi_yield_when_idle", &index) != MPI_SUCCESS) GTEST_SKIP() << "not Open MPI";
  MPI_T_cvar_handle handle;
  int count = 0;
  ASSERT_EQ(MPI_T_cvar_handle_alloc(index, nullptr, &handle, &count), MPI_SUCCESS);
  int value[8] = {};
  ASSERT_EQ(count, 1);
  ASSERT_EQ(MPI_T_cvar_read(handle, value), MPI_SUCCESS);
  EXPECT_NE(value[0], 0);
  MPI_T_cvar_handle_free(&handle);
  MPI_T_finalize();
}

// Values of very different size and either sign: another order of addition gives other bits.
template <class T>
std::vector<T> values(int rank, int64_t count) {
  std::vector<T> x(count);
  for (int64_t i = 0; i < count; ++i) {
    const double value = std::sin(1.0 + rank + 3.7 * static_cast<double>(i)) * std::pow(10.0, (i + 2 * rank) % 7);
    x[i] = static_cast<T>(static_cast<Acc<T>>(value));
  }
  return x;
}

template <class T>
Tensor view(std::vector<T>& x) {
  return Tensor(std::span<T>(x), Shape{static_cast<int64_t>(x.size())});
}

template <class T>
std::vector<T> reduced(Comm& world, int64_t count) {
  std::vector<T> x = values<T>(world.rank(), count), whole = values<T>(world.rank(), count * world.size()), part(count);
  world.all_reduce_sum(view(x));
  world.reduce_scatter_sum(view(whole), view(part));
  x.insert(x.end(), part.begin(), part.end());
  std::fill(part.begin(), part.end(), T());
  world.start_reduce_scatter_sum(view(whole), view(part)).wait();
  x.insert(x.end(), part.begin(), part.end());
  return x;
}

template <class T>
void expect_same_bits(Comm& world, std::initializer_list<int64_t> counts) {
  for (int64_t count : counts) {
    const std::vector<T> over_mpi = reduced<T>(world, count);
    std::vector<T> over_threads;
    run_ranks(world.size(), [&](Comm& comm) {
      std::vector<T> x = reduced<T>(comm, count);
      if (comm.rank() == world.rank()) over_threads = std::move(x);
    });
    ASSERT_EQ(over_mpi.size(), over_threads.size());
    EXPECT_EQ(std::memcmp(over_mpi.data(), over_threads.data(), over_mpi.size() * sizeof(T)), 0) << count;
  }
}

TEST_F(MpiRanks, SumTheSameBitsAsThreads) {
  const std::unique_ptr<Comm> world = testing::mpi_session()->world();
  expect_same_bits<double>(*world, {1, 100, 3000, 700001});
  expect_same_bits<float>(*world, {1, 100, 3000, 700001});
  expect_same_bits<bf16>(*world, {1, 100, 3000, 700001});
}

TEST_F(MpiRanks, MoveMoreThanOneCallCanCount) {
  // As if an int ended at 1000 bytes: everything goes in pieces, of which the last is short.
  const std::unique_ptr<Comm> world = testing::mpi_session()->world(1000);
  expect_same_bits<double>(*world, {1, 100, 3000, 20011});
  const int n = world->size(), rank = world->rank();
  const auto number = [](int from, int64_t i) { return static_cast<int32_t>(100000 * from + i); };
  const int64_t count = 2777;
  std::vector<int32_t> own(count), all(count * n), from_all(count * n);
  for (int64_t i = 0; i < count; ++i) own[i] = number(rank, i);
  world->all_gather(view(own), view(all));
  for (int64_t i = 0; i < count * n; ++i) ASSERT_EQ(all[i], number(static_cast<int>(i / count), i % count));
  std::fill(all.begin(), all.end(), -1);
  world->start_all_gather(view(own), view(all)).wait();
  for (int64_t i = 0; i < count * n; ++i) ASSERT_EQ(all[i], number(static_cast<int>(i / count), i % count));

  for (int64_t i = 0; i < count * n; ++i) all[i] = number(rank, i);
  world->all_to_all(view(all), view(from_all));
  for (int64_t i = 0; i < count * n; ++i) {
    ASSERT_EQ(from_all[i], number(static_cast<int>(i / count), rank * count + i % count));
  }

  std::vector<int32_t> x = own;
  world->broadcast(view(x), n - 1);
  for (int64_t i = 0; i < count; ++i) ASSERT_EQ(x[i], number(n - 1, i));

  Request sent = world->send(view(own), (rank + 1) % n, 9), received = world->receive(view(x), (rank + n - 1) % n, 9);
  sent.wait();
  received.wait();
  for (int64_t i = 0; i < count; ++i) ASSERT_EQ(x[i], number((rank + n - 1) % n, i));
}

TEST_F(MpiRanks, AMessageOfAnotherSizeIsAnError) {
  const std::unique_ptr<Comm> world = testing::mpi_session()->world();
  const int next = (world->rank() + 1) % world->size(), before = (world->rank() + world->size() - 1) % world->size();
  std::vector<float> x(8), y(8);
  {
    Request sent = world->send(view(x).rows(0, 6), next);
    Request shorter = world->receive(view(y), before);
    sent.wait();
    EXPECT_THROW(shorter.wait(), InternalError);
  }
  Request sent = world->send(view(x), next);
  Request longer = world->receive(view(y).rows(0, 7), before);
  sent.wait();
  EXPECT_THROW(longer.wait(), IoError);
}

TEST_F(MpiRanks, HoldTheStagingTheyState) {
  const std::unique_ptr<Comm> world = testing::mpi_session()->world();
  EXPECT_EQ(world->staging_bytes(), mpi_staging_bytes(world->size()));
  EXPECT_EQ(world->split(world->rank(), "alone")->staging_bytes(), 0);
}

TEST(MpiStaging, IsBounded) {
  EXPECT_EQ(mpi_staging_bytes(1), 0);
  EXPECT_EQ(mpi_staging_bytes(2), 2 << 20);
  for (int n = 3; n <= 129; ++n) {
    EXPECT_LE(mpi_staging_bytes(n), 4 << 20) << n;
    EXPECT_GT(mpi_staging_bytes(n), 2 << 20) << n;
  }
  EXPECT_EQ(mpi_staging_bytes(1024), 1023 * (32 << 10));
}

}  // namespace
}  // namespace tessera
