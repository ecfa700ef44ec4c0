// The plan is the allocation: what scaling/planning/memory.h states is what a run of that layout takes, to the byte.
#include <gtest/gtest.h>

#include <map>
#include <mutex>

#include "data/order/synthetic_source.h"
#include "launch/config/run_layout.h"
#include "launch/run.pb.h"
#include "launch/run/assembly.h"
#include "parallel/comm/comm_threads.h"
#include "scaling/planning/memory.h"
#include "tests/launch/proof/small_pipeline.h"
#include "tests/support/ranks.h"

namespace tessera::testing {
namespace {

std::map<std::string, int64_t> by_category(const std::vector<MemoryLine>& lines) {
  std::map<std::string, int64_t> bytes;
  for (const MemoryLine& line : lines) bytes[line.category] = line.bytes;
  return bytes;
}

// What the run has allocated that the layout decides.
std::map<std::string, int64_t> allocated(const Assembly& assembly) {
  std::map<std::string, int64_t> bytes = by_category(assembly.memory());
  bytes.erase("matrix library scratch");
  return bytes;
}

std::map<std::string, int64_t> planned(const std::vector<MemoryLine>& lines) {
  std::map<std::string, int64_t> bytes = by_category(lines);
  bytes.erase("data");
  return bytes;
}

const RankClass* class_of(const std::vector<RankClass>& classes, const std::map<std::string, int64_t>& bytes) {
  for (const RankClass& ranks : classes) {
    if (planned(ranks.lines) == bytes) return &ranks;
  }
  return nullptr;
}

class PlannedMemory : public ::testing::TestWithParam<std::vector<std::string>> {};

TEST_P(PlannedMemory, IsWhatEveryRankAllocates) {
  if (under_mpi()) GTEST_SKIP() << "ranks are threads";
  for (const int family : {ModelConfig::LLAMA, ModelConfig::GPT2}) {
    const RunConfig config = config_of(family, true, GetParam(), {.sequence = 128});  // tiles for context parallelism
    const Layout layout = plan_layout(config);
    const MemoryRequest request{.target = {Device::Cpu, 1}, .validation_sets = 1};
    const std::vector<RankClass> classes = memory_classes(layout, request);
    std::map<const RankClass*, int64_t> ranks_of_class;
    std::mutex mutex;
    run_ranks(layout.mesh.size(), [&](Comm& world) {
      Assembly assembly(config, layout, world, 1);
      SyntheticSource source({.vocab = config.model().vocab_size(),
                              .sequence_length = config.data().sequence_length(),
                              .micro_batch_size = config.data().micro_batch_size(),
                              .global_batch_size = config.data().global_batch_size(),
                              .dp = assembly.mesh().extent(Axis::Dp),
                              .dp_rank = assembly.mesh().coordinate(Axis::Dp)});
      const auto training = assembly.training(source), evaluation = assembly.evaluation(source);
      const std::map<std::string, int64_t> taken = allocated(assembly);
      EXPECT_EQ(taken, planned(memory(layout, world.rank(), request))) << "rank " << world.rank();
      const RankClass* const own = class_of(classes, taken);
      EXPECT_NE(own, nullptr) << "rank " << world.rank() << " belongs to no class";
      const std::lock_guard lock(mutex);
      ++ranks_of_class[own];
    });
    for (const RankClass& ranks : classes) EXPECT_EQ(ranks_of_class[&ranks], ranks.ranks);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Layouts, PlannedMemory,
    ::testing::Values(std::vector<std::string>{"tp=1"}, std::vector<std::string>{"tp=2"},
                      std::vector<std::string>{"tp=2", "recompute=selective", "overlap=false"},
                      std::vector<std::string>{"pp=2", "recompute=full"},
                      std::vector<std::string>{"pp=2", "schedule=zb-v", "tp=2"},
                      std::vector<std::string>{"pp=3", "schedule=interleaved", "chunks=3", "dp=2", "zero_stage=1"},
                      std::vector<std::string>{"cp=2", "dp=2"}, std::vector<std::string>{"dp=4", "zero_stage=1"},
                      std::vector<std::string>{"dp=4", "zero_stage=2", "zero_group=2"},
                      std::vector<std::string>{"dp=2", "cp=2", "zero_stage=3", "recompute=full"},
                      std::vector<std::string>{"dp=2", "tp=2", "pp=2", "zero_stage=3"}));

}  // namespace
}  // namespace tessera::testing
