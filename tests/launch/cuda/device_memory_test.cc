// What a run takes of the device is what it says beforehand.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <set>
#include <string>

#include "data/order/synthetic_source.h"
#include "launch/config/resolve.h"
#include "launch/config/run_layout.h"
#include "launch/run.pb.h"
#include "launch/run/assembly.h"
#include "parallel/comm/comm_threads.h"
#include "scaling/planning/memory.h"
#include "tests/launch/cuda/device_run.h"
#include "tests/support/grid/memory.h"

namespace tessera {
namespace {

using namespace testing_device;

// Of what the layout decides: the rest is libraries' (scratch, the runtime's) or the link's.
void expect_planned(const Assembly& assembly, const RunConfig& config, int rank) {
  const MemoryRequest request{
      .target = {Device::Cuda, 1}, .graphs = config.run().cuda_graphs() != CudaGraphs::OFF, .validation_sets = 1};
  const std::vector<MemoryLine> taken = assembly.memory();
  for (const MemoryLine& line : memory(assembly.layout(), rank, request)) {
    if (line.category == "data") continue;  // the loader's, which this test has not
    const auto same = std::find_if(taken.begin(), taken.end(),
                                   [&](const MemoryLine& other) { return other.category == line.category; });
    ASSERT_NE(same, taken.end()) << line.category;
    EXPECT_EQ(same->bytes, line.bytes) << line.category << ", rank " << rank;
    EXPECT_EQ(same->device, line.device) << line.category;
  }
}

// After a step and an evaluation, on all ranks together.
void expect_stated_bytes(RunConfig config, int ranks, DeviceTransport transport = DeviceTransport::Staged,
                         DeviceSums sums = DeviceSums::Fast) {
  const int64_t global_batch = config.data().global_batch_size();
  resolve(config, {},
          {.world_size = ranks, .data = Surroundings::Data::NotNeeded, .cuda = Surroundings::Cuda::Present});
  const int64_t before = grid::device_bytes();
  run_ranks(ranks, [&](Comm& world) {
    Assembly parts(config, plan_layout(config), world, 1, {.ordinal = 0, .transport = transport, .sums = sums});
    const SyntheticSource::Options options{.vocab = config.model().vocab_size(),
                                           .sequence_length = config.data().sequence_length(),
                                           .global_batch_size = global_batch,
                                           .mean_document = 10,
                                           .dp = parts.mesh().extent(Axis::Dp),
                                           .dp_rank = parts.mesh().coordinate(Axis::Dp)};
    SyntheticSource source(options), other(options);
    const std::unique_ptr<Pipeline> training = parts.training(source), evaluation = parts.evaluation(other);
    training->step(parts.context(), 0, 1e-2, 1);
    evaluation->evaluate(parts.context(), 0, 1, global_batch);
    expect_planned(parts, config, world.rank());
    int64_t stated = 0;
    for (const MemoryLine& line : parts.memory()) stated += line.device == Device::Cuda ? line.bytes : 0;
    stated = world.sum(stated);
    if (world.rank() == 0) {
      EXPECT_EQ(grid::device_bytes() - before, stated);
    }
    world.barrier();  // nobody frees before that
  });
  EXPECT_EQ(grid::device_bytes(), before);
}

TEST(DeviceMemory, IsWhatThePlanSays) {
  for (const ModelConfig::Family family : {ModelConfig::LLAMA, ModelConfig::GPT2}) {
    SCOPED_TRACE(ModelConfig::Family_Name(family));
    expect_stated_bytes(small_config(family, RunSection::F32), 1);
    expect_stated_bytes(small_config(family, RunSection::BF16), 1);
  }
}

TEST(DeviceMemory, IsWhatThePlanSaysOfLayouts) {
  const RunConfig alone = small_config(ModelConfig::LLAMA, RunSection::BF16);
  for (const int stage : {0, 1, 2, 3}) {
    SCOPED_TRACE(stage);
    RunConfig config = alone;
    config.mutable_parallel()->set_dp(2);
    config.mutable_parallel()->set_zero_stage(stage);
    expect_stated_bytes(config, 2);
  }
  RunConfig config = alone;
  config.mutable_parallel()->set_tp(2);
  expect_stated_bytes(config, 2);
  expect_stated_bytes(config, 2, DeviceTransport::Nccl);
  expect_stated_bytes(config, 2, DeviceTransport::Nccl, DeviceSums::RankOrder);
  config.mutable_parallel()->set_pp(2);
  config.mutable_parallel()->set_schedule("zb-h1");
  expect_stated_bytes(config, 4);
}

// However little there is, the error names what it was too little for, and all that was taken is given back.
TEST(DeviceMemory, ThatIsTooLittleIsRefusedByName) {
  RunConfig config = small_config(ModelConfig::LLAMA, RunSection::BF16);
  resolve(config, {}, {.data = Surroundings::Data::NotNeeded, .cuda = Surroundings::Cuda::Present});
  const int64_t before = grid::device_bytes();
  const auto assemble = [&] {
    int64_t bytes = 0;
    run_ranks(1, [&](Comm& world) {
      const Assembly parts(config, plan_layout(config), world, 1);
      bytes = grid::device_bytes() - before;
    });
    return bytes;
  };
  const int64_t all = assemble();
  std::set<std::string> names;
  for (int64_t missing = 1; missing < all; missing += missing < 4096 ? 4095 : 4096) {
    // The largest two, of the runtime, are most of it.
    if (missing > (int64_t{1} << 21) && missing < all - (int64_t{1} << 21)) missing = all - (int64_t{1} << 21);
    grid::limit_device_bytes(before + all - missing);
    try {
      assemble();
      ADD_FAILURE() << missing << " bytes are missing";
    } catch (const DeviceMemoryError& error) {
      const std::string said = error.what(), begin = " bytes of GPU memory for ", end = ": GPU 0 (grid emulator) has ";
      const size_t first = said.find(begin), last = said.find(end);
      ASSERT_TRUE(first != std::string::npos && last != std::string::npos) << said;
      names.insert(said.substr(first + begin.size(), last - first - begin.size()));
    }
    EXPECT_EQ(grid::device_bytes(), before);
  }
  grid::limit_device_bytes(0);
  EXPECT_EQ(names, (std::set<std::string>{"arena 'activations'", "arena 'gradients'", "arena 'optimizer'",
                                          "arena 'weights'", "arena 'workspace'", "sums of squares",
                                          "the matrix library's workspace", "uploads"}));
}

}  // namespace
}  // namespace tessera
