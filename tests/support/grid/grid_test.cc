// The emulator itself: what it runs, and that it sees what kernels do wrong.
#include "tests/support/grid/grid.h"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>
#include <set>
#include <vector>

#include "tensor/kernels/block_sum.h"
#include "tensor/kernels/kernel.h"

namespace tessera {
namespace {

using namespace cuda;

std::string failure(dim3 blocks, dim3 threads, int64_t shared, FunctionRef<void()> body) {
  try {
    grid::run("planted", blocks, threads, shared, body);
  } catch (const InternalError& error) {
    return error.what();
  }
  return "";
}

TEST(Grid, EveryThreadOfEveryBlockRunsOnce) {
  std::vector<int> runs(3 * 2 * 2 * 40 * 3, 0);
  grid::run("count", dim3(3, 2, 2), dim3(40, 3), 0, [&] {
    const unsigned int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    ++runs[block * blockDim.x * blockDim.y + threadIdx.y * blockDim.x + threadIdx.x];
  });
  EXPECT_EQ(std::accumulate(runs.begin(), runs.end(), 0), static_cast<int>(runs.size()));
  EXPECT_EQ(std::set<int>(runs.begin(), runs.end()), std::set<int>{1});
}

// A thread has 256 KiB here; without an end to them the next thread's memory would be overwritten.
TEST(GridDeathTest, AThreadsStackHasAnEnd) {
  const auto overflow = [] {
    grid::run("deep", 1, 64, 0, [] {
      if (threadIdx.x != 0) return;
      volatile char deep[int64_t{300} << 10];
      for (int64_t i = sizeof(deep) - 1; i >= 0; i -= 512) deep[i] = 1;
    });
  };
  EXPECT_DEATH(overflow(), "");
}

TEST(Grid, BarriersOrderSharedMemory) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    grid::set_seed(seed);
    std::vector<int> turned(128);
    grid::run("turn", 1, 128, 128 * sizeof(int), [&] {
      int* shared = shared_memory<int>();
      for (int round = 0; round < 3; ++round) {
        shared[threadIdx.x] = static_cast<int>(threadIdx.x) + round;
        __syncthreads();
        turned[threadIdx.x] = shared[127 - threadIdx.x];
        __syncthreads();
      }
    });
    for (int i = 0; i < 128; ++i) ASSERT_EQ(turned[i], 127 - i + 2);
  }
}

TEST(Grid, NamedBarriersHoldTheirHalfOnly) {
  std::vector<int> order;
  grid::run("halves", 1, 64, 0, [&] {
    if (threadIdx.x < 32) {
      sync_threads(1, 32);
      sync_threads(1, 32);
    } else {
      sync_threads(2, 32);
    }
    if (threadIdx.x % 32 == 0) order.push_back(static_cast<int>(threadIdx.x));
  });
  EXPECT_EQ(order.size(), 2u);
}

// A kernel that forgets a barrier gives other results in some orders, and none when it has it.
TEST(Grid, AMissingBarrierShows) {
  const auto run = [](bool with_barrier, uint64_t seed) {
    grid::set_seed(seed);
    float sum = 0;
    grid::run("neighbours", 1, 64, 64 * sizeof(float), [&] {
      float* shared = shared_memory<float>();
      shared[threadIdx.x] = 1;
      if (with_barrier) __syncthreads();
      const float value = shared[(threadIdx.x + 33) % 64];
      __syncthreads();
      sum += value;
    });
    return sum;
  };
  for (uint64_t seed = 0; seed < 10; ++seed) {
    EXPECT_EQ(run(true, seed), 64);
    EXPECT_TRUE(std::isnan(run(false, seed)));  // shared memory starts as NaN
  }
}

TEST(Grid, OrdersDifferBetweenSeeds) {
  const auto order = [](uint64_t seed) {
    grid::set_seed(seed);
    std::vector<unsigned int> threads;
    grid::run("order", 1, 64, 0, [&] { threads.push_back(threadIdx.x); });
    return threads;
  };
  EXPECT_NE(order(1), order(2));
  EXPECT_EQ(order(3), order(3));
}

TEST(Grid, DeadlocksAndDivergenceAreErrors) {
  EXPECT_NE(failure(1, 64, 0,
                    [] {
                      if (threadIdx.x != 5) __syncthreads();
                    })
                .find("deadlock"),
            std::string::npos);
  EXPECT_NE(failure(1, 32, 0,
                    [] {
                      if (threadIdx.x != 5) shuffle(1, 0);
                    })
                .find("waits for the other lanes"),
            std::string::npos);
  EXPECT_NE(failure(1, 32, 0,
                    [] {
                      if (threadIdx.x < 16)
                        shuffle(1, 0);
                      else
                        vote_any(true);
                    })
                .find("different operations"),
            std::string::npos);
  EXPECT_NE(failure(1, 2048, 0, [] {}).find("1024"), std::string::npos);
  EXPECT_NE(failure(1, 32, int64_t{300} << 10, [] {}).find("shared memory"), std::string::npos);
  // The emulator is whole after each.
  EXPECT_EQ(failure(1, 64, 0, [] { __syncthreads(); }), "");
}

TEST(Grid, WarpsShuffleAndVote) {
  std::vector<int> left(64), folded(64), any(64);
  grid::run("warp", 1, 64, 0, [&] {
    const int i = static_cast<int>(threadIdx.x);
    left[i] = shuffle(i, (i + 31) % 32);
    folded[i] = shuffle_xor(i, 1);
    any[i] = vote_any(i == 40);
  });
  for (int i = 0; i < 64; ++i) {
    EXPECT_EQ(left[i], i / 32 * 32 + (i + 31) % 32);
    EXPECT_EQ(folded[i], i ^ 1);
    EXPECT_EQ(any[i], i >= 32);
  }
}

TEST(Grid, BlockSumsAreOfAllThreads) {
  for (const int threads : {32, 64, 256, 1024}) {
    std::vector<float> sum(threads), most(threads);
    grid::run("sums", 2, threads, 0, [&] {
      float value[2] = {static_cast<float>(threadIdx.x), 1};
      block_sums(value);
      sum[threadIdx.x] = value[0] + value[1];
      most[threadIdx.x] = block_max(static_cast<float>((threadIdx.x * 7) % blockDim.x));
    });
    for (int i = 0; i < threads; ++i) {
      ASSERT_EQ(sum[i], static_cast<float>(threads * (threads - 1) / 2 + threads));
      ASSERT_EQ(most[i], static_cast<float>(threads - 1));
    }
  }
}

// What a kernel reads before wait_copies() may be what was there or what comes; after it, what came.
TEST(Grid, AsynchronousCopiesAreThereWhenWaitedFor) {
  alignas(16) const int32_t source[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  std::set<int> early;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    grid::set_seed(seed);
    std::vector<int> seen;
    grid::run("copies", 1, 1, 48, [&] {
      int32_t* shared = shared_memory<int32_t>();
      std::memset(shared, 0, 48);
      copy_async(shared, source, 16);
      commit_copies();
      copy_async(shared + 4, source + 4, 8);
      commit_copies();
      early.insert(shared[0]);
      wait_copies<1>();
      seen.push_back(shared[3]);
      wait_copies<0>();
      seen.push_back(shared[5]);
      seen.push_back(shared[6]);
    });
    EXPECT_EQ(seen, (std::vector<int>{4, 6, 0}));
  }
  EXPECT_EQ(early, (std::set<int>{0, 1}));
}

TEST(Grid, WholePacksGoToMemoryAtMultiplesOf16Bytes) {
  alignas(16) std::array<float, 8> to{};
  const Pack<float, 4> pack{{1, 2, 3, 4}};
  grid::run("store", 1, 1, 0, [&] { store(to.data() + 4, pack); });
  EXPECT_EQ(to, (std::array<float, 8>{0, 0, 0, 0, 1, 2, 3, 4}));
  EXPECT_NE(failure(1, 1, 0, [&] { store(to.data() + 1, pack); }).find("multiples of 16"), std::string::npos);
  EXPECT_NE(failure(1, 1, 64, [&] { store(shared_memory<float>() + 4, pack); }).find("shared memory"),
            std::string::npos);
}

TEST(Grid, CopiesAndMatricesKeepToTheirAddresses) {
  alignas(16) char memory[64] = {};
  const auto copy = [&](int64_t target, int64_t source, int bytes) {
    return failure(1, 1, 64, [&] { copy_async(shared_memory<char>() + target, memory + source, bytes); });
  };
  EXPECT_EQ(copy(48, 48, 16), "");
  EXPECT_NE(copy(8, 16, 16).find("multiples of 16"), std::string::npos);
  EXPECT_NE(copy(16, 8, 16).find("multiples of 16"), std::string::npos);
  EXPECT_NE(copy(64, 16, 16).find("writes to shared memory"), std::string::npos);
  EXPECT_NE(copy(16, 16, 17).find("at most 16"), std::string::npos);
  EXPECT_NE(failure(1, 1, 64, [&] { copy_async(memory, memory + 16, 16); }).find("writes to shared memory"),
            std::string::npos);
  EXPECT_NE(failure(1, 1, 64, [&] { copy_async(shared_memory<char>(), shared_memory<char>() + 16, 16); })
                .find("reads the device's memory"),
            std::string::npos);

  const auto matrix = [&](int64_t offset) {
    return failure(1, 32, 32 * 16, [&] {
      uint32_t fragment[4];
      ldmatrix(fragment, shared_memory<char>() + 16 * threadIdx.x + (threadIdx.x == 7 ? offset : 0));
    });
  };
  EXPECT_EQ(matrix(0), "");
  EXPECT_NE(matrix(8).find("ldmatrix reads rows at multiples of 16"), std::string::npos);
  EXPECT_NE(matrix(32 * 16).find("ldmatrix reads shared memory"), std::string::npos);
  EXPECT_NE(failure(1, 32, 0,
                    [&] {
                      uint32_t fragment[4];
                      ldmatrix_transposed(fragment, memory);
                    })
                .find("ldmatrix reads shared memory"),
            std::string::npos);
}

float first_of_static_memory() {
  __shared__ Shared<float[2][32]> values;
  const float before = values[1][threadIdx.x];
  values[1][threadIdx.x] = 1;
  return before;
}

TEST(Grid, EveryBlockStartsWithStaticSharedMemoryOfNaN) {
  int seen = 0, not_a_number = 0;
  grid::run("static", 3, 32, 0, [&] {
    ++seen;
    not_a_number += std::isnan(first_of_static_memory());
  });
  EXPECT_EQ(seen, 3 * 32);
  EXPECT_EQ(not_a_number, 3 * 32);
}

// Two products of random integers, exact in BF16 and F32: A and B as tiles in shared memory, B once as [n, k] rows and
// once as [k, n] rows, against the sum by its definition.
TEST(Grid, MatrixInstructionsMultiply) {
  std::vector<bf16> a(16 * 16), b(16 * 16);  // a [m, k]; b [n, k] (the first product) or [k, n] (the second)
  for (int i = 0; i < 256; ++i) {
    a[i] = bf16(static_cast<float>(i * 37 % 15 - 7));
    b[i] = bf16(static_cast<float>(i * 53 % 13 - 6));
  }
  std::vector<float> rows(16 * 16), turned(16 * 16);
  grid::run("mma", 1, 32, 2 * 16 * 16 * sizeof(bf16), [&] {
    bf16* a_tile = shared_memory<bf16>();
    bf16* b_tile = a_tile + 256;
    const int lane = static_cast<int>(threadIdx.x);
    for (int i = lane; i < 256; i += 32) {
      a_tile[i] = a[i];
      b_tile[i] = b[i];
    }
    sync_warp();
    uint32_t fa[4], fb[4], ft[4];
    // A: lanes 0-15 rows 0-15 of columns 0-7, lanes 16-31 of columns 8-15.
    ldmatrix(fa, a_tile + lane % 16 * 16 + lane / 16 * 8);
    // B as [n, k]: matrices (n 0-7, k 0-7), (n 0-7, k 8-15), (n 8-15, k 0-7), (n 8-15, k 8-15).
    ldmatrix(fb, b_tile + (lane % 8 + lane / 16 * 8) * 16 + lane / 8 % 2 * 8);
    // B as [k, n]: matrices (k 0-7, n 0-7), (k 8-15, n 0-7), (k 0-7, n 8-15), (k 8-15, n 8-15).
    ldmatrix_transposed(ft, b_tile + lane % 16 * 16 + lane / 16 * 8);
    for (int half = 0; half < 2; ++half) {
      float c[4] = {}, t[4] = {};
      mma(c, fa, fb[2 * half], fb[2 * half + 1]);
      mma(t, fa, ft[2 * half], ft[2 * half + 1]);
      for (int i = 0; i < 4; ++i) {
        const int at = (lane / 4 + i / 2 * 8) * 16 + half * 8 + 2 * (lane % 4) + i % 2;
        rows[at] = c[i];
        turned[at] = t[i];
      }
    }
  });
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 16; ++j) {
      float by_rows = 0, by_columns = 0;
      for (int k = 0; k < 16; ++k) {
        by_rows += static_cast<float>(a[i * 16 + k]) * static_cast<float>(b[j * 16 + k]);
        by_columns += static_cast<float>(a[i * 16 + k]) * static_cast<float>(b[k * 16 + j]);
      }
      ASSERT_EQ(rows[i * 16 + j], by_rows);
      ASSERT_EQ(turned[i * 16 + j], by_columns);
    }
  }
}

}  // namespace
}  // namespace tessera
