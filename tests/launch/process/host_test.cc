#include "launch/process/host.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "tensor/check.h"
#include "tensor/context/threads.h"

namespace tessera {
namespace {

Environment fake(std::map<std::string, std::string> variables) {
  return [variables = std::move(variables)](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  };
}

TEST(LaunchedRank, ByHandIsAJobOfOne) {
  const LaunchedRank launched = launched_rank(fake({}));
  EXPECT_FALSE(launched.launched);
  EXPECT_EQ(launched.rank, 0);
  EXPECT_EQ(launched.size, 1);
  EXPECT_EQ(launched.local_ranks, 1);
}

TEST(LaunchedRank, OpenMpi) {
  const LaunchedRank launched = launched_rank(fake({{"OMPI_COMM_WORLD_RANK", "5"},
                                                    {"OMPI_COMM_WORLD_SIZE", "8"},
                                                    {"OMPI_COMM_WORLD_LOCAL_SIZE", "4"},
                                                    {"OMPI_COMM_WORLD_LOCAL_RANK", "2"}}));
  EXPECT_EQ(launched.local_rank, 2);
  EXPECT_TRUE(launched.launched);
  EXPECT_EQ(launched.rank, 5);
  EXPECT_EQ(launched.size, 8);
  EXPECT_EQ(launched.local_ranks, 4);
}

TEST(LaunchedRank, MpichHydra) {
  const LaunchedRank launched = launched_rank(fake({{"PMI_RANK", "1"}, {"PMI_SIZE", "6"}, {"MPI_LOCALNRANKS", "3"}}));
  EXPECT_TRUE(launched.launched);
  EXPECT_EQ(launched.rank, 1);
  EXPECT_EQ(launched.size, 6);
  EXPECT_EQ(launched.local_ranks, 3);
}

TEST(LaunchedRank, SlurmTask) {
  const LaunchedRank launched = launched_rank(
      fake({{"SLURM_STEP_ID", "0"}, {"SLURM_PROCID", "9"}, {"SLURM_NTASKS", "16"}, {"SLURM_NTASKS_PER_NODE", "8"}}));
  EXPECT_TRUE(launched.launched);
  EXPECT_EQ(launched.rank, 9);
  EXPECT_EQ(launched.local_rank, 1);  // not told: hosts are filled in order
  EXPECT_EQ(launched.size, 16);
  EXPECT_EQ(launched.local_ranks, 8);
}

TEST(LaunchedRank, SlurmListOfHostsGivesItsFirstCount) {
  const LaunchedRank launched = launched_rank(fake({{"SLURM_STEP_ID", "0"},
                                                    {"SLURM_PROCID", "0"},
                                                    {"SLURM_NTASKS", "11"},
                                                    {"SLURM_STEP_TASKS_PER_NODE", "4(x2),3"}}));
  EXPECT_EQ(launched.local_ranks, 4);
}

TEST(LaunchedRank, SlurmBatchScriptIsNoTask) {
  EXPECT_FALSE(launched_rank(fake({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "16"}})).launched);
}

TEST(LaunchedRank, AnUnsaidLocalCountIsTheWholeJob) {
  EXPECT_EQ(launched_rank(fake({{"PMI_RANK", "1"}, {"PMI_SIZE", "6"}})).local_ranks, 6);
}

TEST(LaunchedRank, NonsenseIsIgnored) {
  const LaunchedRank launched = launched_rank(fake({{"OMPI_COMM_WORLD_RANK", "x"}, {"OMPI_COMM_WORLD_SIZE", "8"}}));
  EXPECT_FALSE(launched.launched);
  EXPECT_EQ(launched_rank(fake({{"PMI_RANK", "0"}, {"PMI_SIZE", "2"}, {"MPI_LOCALNRANKS", "900"}})).local_ranks, 2);
}

TEST(ShareThreads, NeverMoreThanTheCoresUnlessThereAreMoreRanks) {
  for (int cores = 1; cores <= 17; ++cores) {
    for (int ranks = 1; ranks <= 20; ++ranks) {
      const ThreadShare share = share_threads(0, ranks, cores);
      EXPECT_GE(share.threads, 1);
      if (ranks <= cores) {
        EXPECT_LE(share.threads * ranks, cores);
        EXPECT_GT((share.threads + 1) * ranks, cores) << "a core a rank stays idle";
        EXPECT_EQ(share.warning, "");
      } else {
        EXPECT_EQ(share.threads, 1);
        EXPECT_NE(share.warning, "");
      }
    }
  }
}

TEST(ShareThreads, WarnsWhenTheUserAsksForMore) {
  EXPECT_EQ(share_threads(2, 4, 8).warning, "");
  const ThreadShare share = share_threads(4, 4, 8);
  EXPECT_EQ(share.threads, 4);
  EXPECT_EQ(share.warning,
            "4 ranks of 4 threads on this host share 8 usable cores: expect slow steps (run.threads = 2 fits)");
}

TEST(ShareThreads, NegativeIsAUsageError) { EXPECT_THROW(share_threads(-1, 1, 1), UsageError); }

TEST(ProcessMemory, SeesWhatIsTouchedAndOfWhichKind) {
  constexpr int64_t kBytes = 64 << 20;
  const ProcessMemory before = process_memory();
  std::vector<char> heap(kBytes, 1);
  const ProcessMemory with_heap = process_memory();
  // The allocator may also grow or give back a little of its own.
  constexpr int64_t kSlack = 4 << 20;
  EXPECT_NEAR(with_heap.anonymous - before.anonymous, kBytes, kSlack);
  EXPECT_NEAR(with_heap.shared - before.shared, 0, kSlack);
  void* segment = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(segment, MAP_FAILED);
  std::memset(segment, 1, kBytes);
  const ProcessMemory with_segment = process_memory();
  EXPECT_NEAR(with_segment.shared - with_heap.shared, kBytes, kSlack);
  EXPECT_NEAR(with_segment.anonymous - with_heap.anonymous, 0, kSlack);
  EXPECT_EQ(with_segment.resident, with_segment.anonymous + with_segment.file + with_segment.shared);
  EXPECT_GE(with_segment.peak_resident, with_segment.resident - kSlack);
  ::munmap(segment, kBytes);
}

TEST(HostName, IsTheSystemsWithoutItsDomain) {
  char name[256] = {};
  ASSERT_EQ(::gethostname(name, sizeof(name) - 1), 0);
  EXPECT_EQ(std::string(name).rfind(host_name(), 0), 0u);
  EXPECT_EQ(host_name().find('.'), std::string::npos);
  EXPECT_FALSE(host_name().empty());
}

TEST(UsableCores, IsPositive) { EXPECT_GE(usable_cores(), 1); }

TEST(Format, Bytes) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(1023), "1023 B");
  EXPECT_EQ(format_bytes(1536), "1.50 KiB");
  EXPECT_EQ(format_bytes(312.0 * 1024 * 1024), "312 MiB");
  EXPECT_EQ(format_bytes(12.34 * 1024 * 1024 * 1024), "12.3 GiB");
}

TEST(Format, Durations) {
  EXPECT_EQ(format_duration(0.4), "0s");
  EXPECT_EQ(format_duration(12), "12s");
  EXPECT_EQ(format_duration(200), "3m 20s");
  EXPECT_EQ(format_duration(3900), "1h 05m");
  EXPECT_EQ(format_duration(2 * 86400 + 3 * 3600), "2d 03h");
  EXPECT_EQ(format_duration(-1), "?");
}

}  // namespace
}  // namespace tessera
