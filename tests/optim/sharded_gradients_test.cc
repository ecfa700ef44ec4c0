#include "optim/sharded_gradients.h"

#include <gtest/gtest.h>

#include <set>

#include "parallel/comm_threads.h"

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

TEST(ShardedGradients, BlocksTakeOneAreaInTurns) {
  run_ranks(2, [](Comm& world) {
    const Fixture whole(world, 1), shared(world, 2);
    EXPECT_NE(whole.low.gradient.data(), whole.high.gradient.data());
    EXPECT_EQ(shared.low.gradient.data(), shared.high.gradient.data());
    EXPECT_NE(shared.norm.gradient.data(), shared.high.gradient.data());
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
            add(f.norm, 100 * mine);  // BACKWARD_INPUT, before the other block's REDUCE
            add(f.high, mine + static_cast<float>(m));
            if (stage > 1 || last) f.gradients->reduce(f.context, 0, {1, 2}, last);
            add(f.low, 10 * mine);
            if (stage > 1 || last) f.gradients->reduce(f.context, 0, {0, 1}, last);
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
