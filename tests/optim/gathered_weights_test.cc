#include "optim/gathered_weights.h"

#include <gtest/gtest.h>

#include <memory>

#include "parallel/comm/comm_threads.h"
#include "parallel/schedule/text.h"

namespace tessera {
namespace {

constexpr int64_t kUnit = Arena::kAlignment;

// One stage of three blocks, each of a matrix of 5 rows; a table tied to the last block's head, in the first block.
struct Fixture {
  Fixture(Comm& world, const std::vector<std::string>& lists) : mesh(world, {.dp = world.size()}) {
    for (int block = 0; block < 3; ++block) add("matrix" + std::to_string(block), {5, 2}, block);
    add("table", {4, 3}, 0);
    parameters.back()->forward_reads_alone = true;
    parameters.back()->head_block = 2;
    share_out(parameters, mesh.shape(), 3);
    shard_memory = Arena("shards", Device::Cpu, 8 * kUnit);
    for (Parameter* p : parameters) {
      const Ownership own = ownership(*p, mesh.shape(), world.rank(), 3);
      mesh.group(own.sharers);
      const Tensor rows = shard_memory.take(p->global_shape.with_rows(own.rows.size()), DType::F32);
      const int64_t row = p->global_shape.row_size();
      for (int64_t i = 0; i < rows.size(); ++i) rows.as<float>()[i] = element(*p, own.rows.begin * row + i);
      shards.push_back({p, own, rows});
    }
    std::vector<Schedule> parsed;
    for (const std::string& list : lists) {
      parsed.push_back(parse_schedule(list));
      for (Action& a : parsed.back()) a.blocks.last = std::min(a.blocks.last, 3);
    }
    bytes = GatheredWeights::bytes(parameters, DType::F32, parsed);
    memory = Arena("gathered", Device::Cpu, bytes);
    weights = std::make_unique<GatheredWeights>(mesh, parameters, shards, bytes, memory);
  }

  void add(const std::string& name, const Shape& shape, int block) {
    owners.push_back(std::make_unique<Parameter>(Parameter{.name = name,
                                                           .global_shape = shape,
                                                           .rows = {0, shape[0]},
                                                           .replicas = {Axis::Dp, Axis::Cp},
                                                           .block = block,
                                                           .value = {},
                                                           .gradient = {}}));
    parameters.push_back(owners.back().get());
  }
  static float element(const Parameter& p, int64_t i) {
    return static_cast<float>(100 * i + static_cast<int64_t>(p.name.size()) + p.block);
  }
  void gather(BlockRange blocks, GatherFor purpose) const {
    weights->gather(context, 0, blocks, purpose);
    weights->needed(0, blocks);
  }
  bool there(int i) const {
    const Parameter& p = *parameters[i];
    if (p.value.data() == nullptr) return false;
    EXPECT_EQ(p.value.shape(), p.global_shape);
    for (int64_t k = 0; k < p.value.size(); ++k) EXPECT_EQ(p.value.as<float>()[k], element(p, k)) << p.name;
    return true;
  }

  Context context{{.threads = 1}};
  Mesh mesh;
  std::vector<std::unique_ptr<Parameter>> owners;
  Parameters parameters;
  Arena shard_memory, memory;
  std::vector<GatheredWeights::Shard> shards;
  int64_t bytes = 0;
  std::unique_ptr<GatheredWeights> weights;
};

TEST(GatheredWeights, AreWholeFromGatherToRelease) {
  for (const int n : {1, 2, 4}) {
    run_ranks(n, [](Comm& world) {
      Fixture f(world, {"G:0-1 G:1-2 F0:0-1 X:0-1 G:2- F0:1-2 X:1-2 F0:2- X:2-"});
      for (int i = 0; i < 4; ++i) EXPECT_FALSE(f.there(i));
      f.gather({0, 1}, GatherFor::Forward);
      f.gather({1, 2}, GatherFor::Forward);
      EXPECT_TRUE(f.there(0) && f.there(1) && f.there(3));
      EXPECT_FALSE(f.there(2));
      f.weights->release(0, {0, 1});
      EXPECT_FALSE(f.there(0));
      EXPECT_FALSE(f.there(3));
      f.gather({2, 3}, GatherFor::Forward);  // at the other end of the memory, with the table
      EXPECT_TRUE(f.there(1) && f.there(2) && f.there(3));
      f.weights->release(0, {1, 2});
      f.weights->release(0, {2, 3});
      for (int i = 0; i < 4; ++i) EXPECT_FALSE(f.there(i));
    });
  }
}

TEST(GatheredWeights, TablesAreGatheredForForwardAlone) {
  run_ranks(2, [](Comm& world) {
    Fixture f(world, {"G:0-1 F0:0-1 X:0-1"});
    f.gather({0, 1}, GatherFor::Backward);
    EXPECT_TRUE(f.there(0));
    EXPECT_FALSE(f.there(3));
    // Backward needs no table: half a parameter less on the wire.
    EXPECT_EQ(f.mesh.group({Axis::Dp, Axis::Cp}).traffic().total_bytes(), 3 * 2 * 4);
  });
}

TEST(GatheredWeights, ATiedTableStaysForItsOtherBlock) {
  run_ranks(2, [](Comm& world) {
    Fixture f(world, {"G:0-1 G:2- F0 X:0-1 X:2-"});
    f.gather({0, 1}, GatherFor::Forward);
    f.gather({2, 3}, GatherFor::Forward);
    f.weights->release(0, {2, 3});
    f.weights->needed(0, {0, 1});
    EXPECT_TRUE(f.there(3));
    // While it is under way for the other block, this one reads what it has.
    const void* const held = f.parameters[3]->value.data();
    f.weights->gather(f.context, 0, {2, 3}, GatherFor::Forward);
    EXPECT_EQ(f.parameters[3]->value.data(), held);
    f.weights->release(0, {2, 3});
    f.gather({2, 3}, GatherFor::Forward);
    f.weights->release(0, {0, 1});
    f.weights->needed(0, {2, 3});
    EXPECT_TRUE(f.there(3));
    f.weights->reset();
    EXPECT_FALSE(f.there(3));
  });
}

TEST(GatheredWeights, MemoryIsTheMostThatIsAliveTogether) {
  run_ranks(1, [](Comm& world) {
    EXPECT_EQ(Fixture(world, {"G:1-2 F0:1-2 X:1-2"}).bytes, kUnit);
    EXPECT_EQ(Fixture(world, {"G:0-1 F0:0-1 X:0-1"}).bytes, 2 * kUnit);  // with the table
    EXPECT_EQ(Fixture(world, {"G:0-1 G:1-2 F0:0-1 X:0-1 X:1-2"}).bytes, 3 * kUnit);
    EXPECT_EQ(Fixture(world, {"G:0-1 G:1-2 B0:0-1 X:0-1 X:1-2"}).bytes, 2 * kUnit);
    EXPECT_EQ(Fixture(world, {"G:0- F0 X:0-"}).bytes, 4 * kUnit);  // the table once
    EXPECT_EQ(Fixture(world, {"G:1-2 F0 X:1-2", "G:0-1 G:2- F0 X:0-1 X:2-"}).bytes, 4 * kUnit);
  });
}

TEST(GatheredWeights, RefuseAThirdAndWhatWasNotStated) {
  run_ranks(1, [](Comm& world) {
    Fixture f(world, {"G:0-1 G:1-2 F0:0-1 X:0-1 X:1-2"});
    EXPECT_THROW(f.weights->release(0, {0, 1}), InternalError);
    f.gather({0, 1}, GatherFor::Forward);
    f.gather({1, 2}, GatherFor::Forward);
    EXPECT_THROW(f.weights->gather(f.context, 0, {2, 3}, GatherFor::Forward), InternalError);
    f.weights->reset();
    f.gather({0, 1}, GatherFor::Forward);
    EXPECT_THROW(f.weights->gather(f.context, 0, {2, 3}, GatherFor::Forward), InternalError);  // four units
  });
}

}  // namespace
}  // namespace tessera
