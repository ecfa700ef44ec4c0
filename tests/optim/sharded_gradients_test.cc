#include "optim/sharded_gradients.h"

#include <gtest/gtest.h>

#include <set>

#include "parallel/comm/comm_threads.h"

namespace tessera {
namespace {

Parameter parameter(const std::string& name, const Shape& shape, int block, bool weight_adds_alone = true) {
  return {.name = name,
          .global_shape = shape,
          .rows = {0, shape[0]},
          .replicas = {Axis::Dp, Axis::Cp},
          .block = block,
          .weight_adds_alone = weight_adds_alone,
          .value = {},
          .gradient = {}};
}

struct Fixture {
  Fixture(Comm& world, int stage) : mesh(world, {.dp = world.size()}) {
    mesh.group({Axis::Dp, Axis::Cp});
    share_out(parameters, mesh.shape(), stage);
    gradients = std::make_unique<ShardedGradients>(mesh, parameters, ShardedGradients::Options{.zero_stage = stage},
                                                   Device::Cpu);
    gradients->clear(context);
  }
  Parameter low = parameter("low", {5, 8}, 0), norm = parameter("norm", {3}, 0, false),
            high = parameter("high", {7, 4}, 1);
  Parameters parameters{&low, &norm, &high};
  Context context{{.threads = 1}};
  Mesh mesh;
  std::unique_ptr<ShardedGradients> gradients;
};

void add(const Parameter& p, float x) {
  for (float& g : p.gradient.span<float>()) g += x;
}

TEST(ShardedGradients, BlocksTakeTwoAreasInTurns) {
  run_ranks(2, [](Comm& world) {
    Fixture whole(world, 1), f(world, 2);
    EXPECT_NE(whole.low.gradient.data(), whole.high.gradient.data());
    std::vector<void*> areas;
    for (int block = 4; block-- > 0;) {
      const Parameter& p = block % 2 == 1 ? f.high : f.low;
      f.gradients->needed(f.context, 0, {block % 2, block % 2 + 1});
      areas.push_back(p.gradient.data());
      for (const float g : p.gradient.span<float>()) EXPECT_EQ(g, 0.0f) << "is zeroed for the next block";
      add(p, 1);
      f.gradients->reduce(f.context, 0, {block % 2, block % 2 + 1}, block < 2 ? ReduceTurn::Last : ReduceTurn::Earlier);
    }
    EXPECT_NE(areas[0], areas[1]) << "one is filled while the other one is summed";
    EXPECT_EQ(areas[0], areas[2]);
    EXPECT_EQ(areas[1], areas[3]);
    EXPECT_THROW(f.gradients->needed(f.context, 0, {0, 2}), InternalError);
    f.gradients->join(f.context);
  });
}

// Three microbatches through blocks that take turns, with another value each.
TEST(ShardedGradients, SumsOverMicrobatchesAndRanks) {
  for (const int stage : {1, 2, 3}) {
    for (const int n : {1, 2, 3}) {
      run_ranks(n, [&](Comm& world) {
        Fixture f(world, stage);
        const auto mine = static_cast<float>(world.rank() + 1);
        for (int step = 0; step < 2; ++step) {
          f.gradients->clear(f.context);
          for (int m = 0; m < 3; ++m) {
            const bool last = m == 2;
            const ReduceTurn turn = last ? ReduceTurn::Last : ReduceTurn::Earlier;
            add(f.norm, 100 * mine);  // BACKWARD_INPUT, before the other block's REDUCE
            if (stage > 1) f.gradients->needed(f.context, 0, {1, 2});
            add(f.high, mine + static_cast<float>(m));
            if (stage > 1 || last) f.gradients->reduce(f.context, 0, {1, 2}, turn);
            if (stage > 1) f.gradients->needed(f.context, 0, {0, 1});
            add(f.low, 10 * mine);
            if (stage > 1 || last) f.gradients->reduce(f.context, 0, {0, 1}, turn);
          }
          f.gradients->join(f.context);
          const float ranks = static_cast<float>(n) * static_cast<float>(n + 1) / 2;
          for (const GradientShare& share : f.gradients->shares()) {
            EXPECT_EQ(share.sum.dim(0), share.own.rows.size());
            const float expected = share.parameter == &f.low    ? 30 * ranks
                                   : share.parameter == &f.norm ? 300 * ranks
                                                                : 3 * ranks + 3 * static_cast<float>(n);
            for (const float g : share.sum.span<float>()) EXPECT_EQ(g, expected) << share.parameter->name;
          }
        }
      });
    }
  }
}

TEST(ShardedGradients, NeedTheirParts) {
  run_ranks(2, [](Comm& world) {
    Mesh mesh(world, {.dp = 2});
    mesh.group({Axis::Dp, Axis::Cp});
    Parameter p = parameter("p", {4}, 0);
    EXPECT_THROW(ShardedGradients(mesh, {&p}, {}, Device::Cpu), InternalError);
  });
}

}  // namespace
}  // namespace tessera
