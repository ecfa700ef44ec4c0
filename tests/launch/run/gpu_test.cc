#include "launch/run/gpu.h"

#include <gtest/gtest.h>

#include "launch/run.pb.h"
#include "tensor/check.h"
#include "tensor/cuda/device.h"
#include "tensor/has_cuda.h"

namespace tessera {
namespace {

std::string refusal(const std::vector<ChosenGpu>& gpus) {
  try {
    require_own_gpus(gpus);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "";
}

TEST(Gpu, EachRankOfAHostTakesOne) {
  for (int rank = 0; rank < 4; ++rank) {
    const RankGpu gpu = choose_gpu("auto", {.rank = rank, .ranks = 4, .threads = false}, 16, 4);
    EXPECT_EQ(gpu.ordinal, rank);
    EXPECT_EQ(gpu.transport, DeviceTransport::Nccl);
  }
  EXPECT_EQ(choose_gpu("staged", {.rank = 3, .ranks = 4, .threads = false}, 4, 2).ordinal, 1);
  EXPECT_THROW(choose_gpu("auto", {}, 1, 0), UsageError);
}

TEST(Gpu, SeveralRanksSetWhatTheUserHasNot) {
  using Wanted = std::vector<std::pair<std::string, std::string>>;
  const auto wanted = [](int ranks, const Environment& environment) {
    const auto variables = gpu_environment(ranks, environment);
    return Wanted(variables.begin(), variables.end());
  };
  const Environment empty = [](const char*) { return nullptr; };
  const Environment some = [](const char* name) {
    return std::string(name) == "CUDA_MODULE_LOADING" ? "LAZY" : nullptr;
  };
  EXPECT_EQ(wanted(1, empty), Wanted());
  EXPECT_EQ(wanted(2, empty), (Wanted{{"CUDA_DEVICE_MAX_CONNECTIONS", "32"}, {"CUDA_MODULE_LOADING", "EAGER"}}));
  EXPECT_EQ(wanted(2, some), (Wanted{{"CUDA_DEVICE_MAX_CONNECTIONS", "32"}}));
}

TEST(Gpu, ARankThatSeesOneGpuTakesIt) {
  for (int rank = 0; rank < 4; ++rank) {
    const RankGpu gpu = choose_gpu("auto", {.rank = rank, .ranks = 4, .threads = false}, 4, 1);
    EXPECT_EQ(gpu.ordinal, 0);
    EXPECT_EQ(gpu.transport, DeviceTransport::Nccl);
  }
}

TEST(Gpu, RanksThatAreThreadsGoThroughHostMemory) {
  const RankGpu gpu = choose_gpu("auto", {.rank = 1, .ranks = 2, .threads = true}, 2, 1);
  EXPECT_EQ(gpu.ordinal, 0);
  EXPECT_EQ(gpu.transport, DeviceTransport::Staged);
}

// However many a rank sees: the GPUs are the same when their UUIDs are.
TEST(Gpu, NcclNeedsOneForEachRank) {
  EXPECT_EQ(refusal({{"GPU-a", 1, 2}, {"GPU-b", 1, 2}, {"GPU-c", 1, 2}, {"GPU-d", 1, 2}}), "");
  EXPECT_EQ(refusal({{"GPU-a", 8, 2}, {"GPU-b", 8, 2}}), "");
  EXPECT_EQ(refusal({{"", 1, 2}, {"", 1, 2}}), "") << "not known";
  EXPECT_EQ(refusal({{"GPU-a", 2, 3}, {"GPU-b", 2, 3}, {"GPU-a", 2, 3}}),
            "ranks 0 and 2 would share GPU-a, which NCCL cannot (3 ranks on their host; rank 2 sees 2 GPUs): start no "
            "more ranks on a host than it has GPUs, let each rank see one of its own (CUDA_VISIBLE_DEVICES), or set "
            "parallel.gpu_transport = staged (through host memory: slow)");
  EXPECT_EQ(refusal({{"GPU-a", 1, 1}, {"GPU-b", 1, 2}, {"GPU-b", 1, 2}}).substr(0, 31),
            "ranks 1 and 2 would share GPU-b");
}

TEST(Gpu, ARankAloneNeedsNoTransportUnlessItIsAskedFor) {
  EXPECT_EQ(choose_gpu("auto", {}, 1, 1).transport, DeviceTransport::Staged);
  EXPECT_EQ(choose_gpu("nccl", {}, 1, 1).transport, DeviceTransport::Nccl);
  EXPECT_EQ(choose_gpu("nccl", {.rank = 0, .ranks = 1, .threads = true}, 1, 1).transport, DeviceTransport::Nccl);
}

// Where there is none, or no kernels for it, the config that asks for it is refused with the reason.
TEST(Gpu, WhatIsMissingIsSaid) {
  Surroundings surroundings{.data = Surroundings::Data::NotNeeded};
  find_gpus(surroundings);
  if (surroundings.cuda == Surroundings::Cuda::Present) GTEST_SKIP() << "there is a GPU";
  EXPECT_EQ(surroundings.cuda, kHasCuda ? Surroundings::Cuda::NoGpu : Surroundings::Cuda::NotBuilt);
  ASSERT_FALSE(surroundings.cuda_reason.empty());
  surroundings.cuda = Surroundings::Cuda::NoGpu;
  RunConfig config;
  config.mutable_model()->set_vocab_size(100);
  config.mutable_run()->set_device(RunSection::CUDA);
  try {
    resolve(config, {}, surroundings);
    FAIL() << "run.device = CUDA without a GPU";
  } catch (const UsageError& error) {
    EXPECT_NE(std::string(error.what()).find("run.device = CUDA: " + surroundings.cuda_reason), std::string::npos)
        << error.what();
  }
}

TEST(Gpu, TransportsAreKnown) {
  RunConfig config;
  config.mutable_model()->set_vocab_size(100);
  config.mutable_parallel()->set_gpu_transport("ncl");
  try {
    resolve(config, {}, {.data = Surroundings::Data::NotNeeded});
    FAIL() << "a transport that there is not";
  } catch (const UsageError& error) {
    EXPECT_NE(std::string(error.what()).find("parallel.gpu_transport = ncl"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("nccl"), std::string::npos) << error.what();
  }
}

TEST(Gpu, ProductsIn8BitsNeedUnitsForThem) {
  EXPECT_NO_THROW(require_fp8_units(cuda::DeviceInfo{.name = "NVIDIA L4", .major = 8, .minor = 9}));
  EXPECT_NO_THROW(require_fp8_units(cuda::DeviceInfo{.name = "NVIDIA H200", .major = 9}));
  EXPECT_NO_THROW(require_fp8_units(cuda::DeviceInfo{.name = "NVIDIA B200", .major = 10}));
  try {
    require_fp8_units(cuda::DeviceInfo{.name = "NVIDIA A100-SXM4-80GB", .major = 8});
    FAIL() << "an A100 has none";
  } catch (const UsageError& error) {
    EXPECT_STREQ(error.what(),
                 "run.compute_dtype = FP8: needs a GPU with FP8 matrix units, of compute capability 8.9 or more, and "
                 "NVIDIA A100-SXM4-80GB has 8.0; choose F64, F32 or BF16");
  }
  EXPECT_THROW(require_fp8_units(Context({})), UsageError);
}

}  // namespace
}  // namespace tessera
