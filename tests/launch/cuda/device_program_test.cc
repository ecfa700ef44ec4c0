// The program on the emulated device: where something that a run needs of a GPU is missing it says in one line what,
// where and what to do, with the exit code that goes with it; and what it says of a run that can be.
#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>
#include <string>

#include "tests/launch/run/small_run.h"
#include "tests/support/program.h"

namespace tessera::testing {
namespace {

class DeviceProgram : public SmallRun {
 protected:
  // `tessera train` on the emulated device; environment: NAME=VALUE words.
  static ProgramResult train(const std::string& environment, const std::string& more = "") {
    return run_shell("env " + environment + " " + program(more));
  }
  // By processes; the environment may use $OMPI_COMM_WORLD_RANK.
  static ProgramResult train_ranks(int ranks, const std::string& environment, const std::string& more = "") {
    return run_shell(mpirun(ranks) + "sh -c 'exec env " + environment + " " + program(more) + "'");
  }
  static std::string program(const std::string& more) {
    return testing::binary_dir() + "/tests/tessera_grid " +
           arguments("run", "--set run.device=CUDA --set run.steps=1 " + more);
  }
  // What is said on lines of errors.
  static std::vector<std::string> errors(const ProgramResult& result) {
    std::vector<std::string> lines;
    std::istringstream output(result.output);
    for (std::string line; std::getline(output, line);) {
      const std::string begin = "tessera: error: ";
      if (line.substr(0, begin.size()) == begin) lines.push_back(line.substr(begin.size()));
    }
    return lines;
  }
  // Alone, it says nothing else.
  static void expect_refused(const ProgramResult& result, int code, const std::string& line) {
    EXPECT_EQ(result.code, code);
    EXPECT_EQ(result.output, "tessera: error: " + line + "\n");
  }
  // Under mpirun, which has words of its own; a second rank may say the same where ending the job takes long.
  static void expect_ranks_refused(const ProgramResult& result, int code, const std::string& part) {
    EXPECT_EQ(result.code, code) << result.output;
    const std::vector<std::string> lines = errors(result);
    EXPECT_FALSE(lines.empty()) << result.output;
    for (const std::string& line : lines) EXPECT_NE(line.find(part), std::string::npos) << line;
  }
};

constexpr char kLess[] =
    "; a smaller data.micro_batch_size, parallel.recompute = full, or more ranks (parallel.tp, parallel.pp, or "
    "parallel.dp with parallel.zero_stage) take less of it on each";

TEST_F(DeviceProgram, NamesWhatTheDeviceHasNoRoomFor) {
  expect_refused(train("TESSERA_GRID_BYTES=20000000"), 74,
                 "cannot allocate 33554432 bytes of GPU memory for the matrix library's workspace: GPU 0 (grid "
                 "emulator) has 11545856 of its 20000000 bytes free" +
                     std::string(kLess));
  const ProgramResult result = train("TESSERA_GRID_BYTES=42100000");
  EXPECT_EQ(result.code, 74);
  EXPECT_EQ(std::count(result.output.begin(), result.output.end(), '\n'), 1) << result.output;
  EXPECT_NE(result.output.find(" bytes of GPU memory for arena '"), std::string::npos) << result.output;
  EXPECT_NE(result.output.find(kLess), std::string::npos) << result.output;
}

TEST_F(DeviceProgram, NeedsAGpu) {
  expect_refused(train("TESSERA_GRID_GPUS="), 2,
                 "--set run.device=CUDA: run.device = CUDA: the NVIDIA driver finds no GPU (is CUDA_VISIBLE_DEVICES "
                 "empty?); choose CPU or AUTO");
}

// On all ranks or on none.
TEST_F(DeviceProgram, NeedsAGpuOnEachRank) {
  expect_ranks_refused(
      train_ranks(2, "$(test $OMPI_COMM_WORLD_RANK = 0 || echo TESSERA_GRID_GPUS=)", "--set run.device=AUTO"), 2,
      "run.device = AUTO: rank 1 finds no GPU that it can use, and 1 of 2 ranks do");
}

#ifdef TESSERA_TEST_NCCL
constexpr char kNccl[] = "--set parallel.gpu_transport=nccl";
constexpr char kStaged[] = "or set parallel.gpu_transport = staged (through host memory: slow)\n";

TEST_F(DeviceProgram, OpensNcclForARankThatAsksForIt) {
  const ProgramResult result = train("", kNccl);
  EXPECT_EQ(result.code, 0) << result.output;
}

TEST_F(DeviceProgram, NeedsAnNcclThatIsNewEnough) {
  const ProgramResult result = train("FAKE_NCCL_VERSION=21805", kNccl);
  EXPECT_EQ(result.code, 2);
  EXPECT_EQ(std::count(result.output.begin(), result.output.end(), '\n'), 1) << result.output;
  EXPECT_NE(result.output.find("/libnccl.so.2 is NCCL 2.18.5, which is too old"), std::string::npos) << result.output;
  EXPECT_NE(result.output.find(kStaged), std::string::npos) << result.output;
}

// A file that cannot be loaded stands before the one that the test has.
TEST_F(DeviceProgram, NeedsAnNccl) {
  std::filesystem::create_directories(path("none"));
  std::ofstream(path("none/libnccl.so.2")) << "not a library";
  const ProgramResult result = train("LD_LIBRARY_PATH=" + path("none"), kNccl);
  EXPECT_EQ(result.code, 2);
  EXPECT_EQ(std::count(result.output.begin(), result.output.end(), '\n'), 1) << result.output;
  EXPECT_NE(result.output.find("cannot open libnccl.so.2, which ranks on several GPUs need ("), std::string::npos)
      << result.output;
  EXPECT_NE(result.output.find(kStaged), std::string::npos) << result.output;
}

// Each process may see one GPU, number 0, as long as it is its own: then they are compared by their libraries next.
TEST_F(DeviceProgram, NeedsAGpuForEachRankAndOneNccl) {
  expect_ranks_refused(train_ranks(2, "TESSERA_GRID_GPUS=7", kNccl), 2,
                       "ranks 0 and 1 would share GPU-grid-7, which NCCL cannot (2 ranks on their host; rank 1 sees 1 "
                       "GPU): start no more ranks on a host than it has GPUs");
  expect_ranks_refused(
      train_ranks(2, "TESSERA_GRID_GPUS=$OMPI_COMM_WORLD_RANK FAKE_NCCL_VERSION=2990$OMPI_COMM_WORLD_RANK", kNccl), 2,
      "NCCL is 2.99.0 on rank 0 and 2.99.1 on rank 1 (1 of 2 ranks have 2.99.1): install the same one on every host");
}
#endif

// Where no graph can be recorded, a run that may record says so, once.
TEST_F(DeviceProgram, SaysThatNoGraphIsRecorded) {
  const std::string graphs = "--set run.cuda_graphs=AUTO --set parallel.gpu_transport=staged --local-ranks 2 ";
  const std::string line =
      "run.cuda_graphs = AUTO records nothing in this layout: with tp or cp above 1 blocks talk to other ranks";
  const ProgramResult dp = train("", graphs + "--set parallel.dp=2"), tp = train("", graphs + "--set parallel.tp=2");
  EXPECT_EQ(dp.code, 0) << dp.output;
  EXPECT_EQ(dp.output.find(line), std::string::npos) << dp.output;
  EXPECT_EQ(tp.code, 0) << tp.output;
  const size_t first = tp.output.find(line);
  ASSERT_NE(first, std::string::npos) << tp.output;
  EXPECT_EQ(tp.output.find(line, first + 1), std::string::npos) << tp.output;
}

}  // namespace
}  // namespace tessera::testing
