#include "tensor/context/threads.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <numeric>
#include <thread>
#include <vector>

#include "tensor/context/context.h"

namespace tessera {
namespace {

using Part = std::pair<int64_t, int64_t>;

std::vector<Part> parts_of(const Context& context, int64_t count, int64_t grain) {
  std::mutex mutex;
  std::vector<Part> parts;
  parallel_for(context, count, grain, [&](int64_t begin, int64_t end) {
    const std::lock_guard lock(mutex);
    parts.emplace_back(begin, end);
  });
  std::sort(parts.begin(), parts.end());
  return parts;
}

TEST(ParallelFor, PartsCoverTheRangeOnceInWholeGrains) {
  for (const int threads : {1, 2, 3, 8}) {
    const Context context({.threads = threads});
    for (const int64_t count : {0, 1, 7, 64, 1000, 1001}) {
      for (const int64_t grain : {0, 1, 3, 64, 5000}) {
        const std::vector<Part> parts = parts_of(context, count, grain);
        EXPECT_LE(parts.size(), static_cast<size_t>(threads));
        int64_t next = 0;
        for (const auto& [begin, end] : parts) {
          EXPECT_EQ(begin, next);
          EXPECT_LT(begin, end);
          if (end != count) {
            EXPECT_EQ((end - begin) % std::max<int64_t>(grain, 1), 0);
          }
          next = end;
        }
        EXPECT_EQ(next, count) << "threads " << threads << " grain " << grain;
        EXPECT_EQ(parts, parts_of(context, count, grain)) << "splits are static";
      }
    }
  }
}

TEST(ParallelFor, UsesAllThreadsAndBalancesThem) {
  const Context context({.threads = 3});
  const std::vector<Part> parts = parts_of(context, 10, 1);
  ASSERT_EQ(parts.size(), 3u);
  for (const auto& [begin, end] : parts) EXPECT_LE(end - begin, 4);
}

TEST(ParallelFor, CoversTheRangeInsideAnotherParallelRegion) {
  // There the runtime gives one thread instead of those asked for.
  const Context context({.threads = 3});
  std::vector<int> seen(300);
  parallel_for(context, 3, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      parallel_for(context, 100, 1, [&, i](int64_t first, int64_t last) {
        for (int64_t j = first; j < last; ++j) ++seen[i * 100 + j];
      });
    }
  });
  for (const int count : seen) EXPECT_EQ(count, 1);
}

TEST(ParallelTasks, RunsEachTaskOnceWithAWorkerOfItsOwn) {
  for (const int threads : {1, 2, 3, 8}) {
    const Context context({.threads = threads});
    for (const int64_t count : {0, 1, 2, 500}) {
      std::vector<std::atomic<int>> seen(count), busy(threads);
      std::atomic<bool> shared = false;
      parallel_tasks(context, count, [&](int64_t index, int worker) {
        if (busy.at(worker).fetch_add(1) != 0) shared = true;
        ++seen.at(index);
        busy.at(worker).fetch_sub(1);
      });
      EXPECT_FALSE(shared);
      for (const auto& times : seen) EXPECT_EQ(times, 1);
    }
  }
}

TEST(FunctionRef, CallsWhatItRefersTo) {
  int calls = 0;
  auto count = [&calls](int by) { return calls += by; };
  const FunctionRef<int(int)> first(count);
  const FunctionRef<int(int)> copy = first;
  EXPECT_EQ(first(2), 2);
  EXPECT_EQ(copy(3), 5);
}

TEST(Threads, RanksAsThreadsEachHaveTheirOwn) {
  // Several ranks in one process: each thread has a context, and all work at the same time.
  std::vector<int64_t> sums(4);
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < 4; ++rank) {
    ranks.emplace_back([&sums, rank] {
      const Context context({.threads = 2});
      std::vector<int64_t> values(10000);
      for (int repeat = 0; repeat < 20; ++repeat) {
        parallel_for(context, 10000, 16, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) values[i] += rank;
        });
      }
      sums[rank] = std::accumulate(values.begin(), values.end(), int64_t{0});
    });
  }
  for (std::thread& rank : ranks) rank.join();
  for (int rank = 0; rank < 4; ++rank) EXPECT_EQ(sums[rank], 200000 * rank);
}

TEST(Threads, UsableCoresAreAtLeastOneAndNoMoreThanTheMachineHas) {
  EXPECT_GE(usable_cores(), 1);
  EXPECT_LE(usable_cores(), static_cast<int>(std::thread::hardware_concurrency()));
}

TEST(Context, WorkspaceIsResizedOnlyWhenUnused) {
  Context context({.workspace_bytes = 1024});
  EXPECT_EQ(context.workspace().capacity(), 1024);
  {
    const ArenaScope scope(context.workspace());
    context.workspace().take({4}, DType::F32);
    EXPECT_THROW(context.resize_workspace(2048), InternalError);
  }
  context.resize_workspace(2048);
  EXPECT_EQ(context.workspace().capacity(), 2048);
  EXPECT_THROW(Context({.threads = 0}), InternalError);
}

}  // namespace
}  // namespace tessera
