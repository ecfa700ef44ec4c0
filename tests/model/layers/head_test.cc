// The loss by tiles of tokens, which the vocabularies of the other tests are too small for.
#include "model/layers/head.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "parallel/comm/comm_threads.h"
#include "tests/model/rig.h"
#include "tests/support/tolerance.h"

namespace tessera::testing {
namespace {

constexpr int64_t kTokens = 192, kHidden = 8, kVocab = 65536;  // a token's logits are 512 KiB

ModelShape wide_shape(int64_t slots) {
  ModelShape shape = small_shape(Family::Llama, slots);
  shape.hidden = kHidden;
  shape.vocab = kVocab;
  return shape;
}

struct Results {
  double trained = 0, evaluated = 0;
  std::vector<double> dx, dtable, dnorm;
};

// The head over kTokens tokens, in calls of `slots` tokens each.
Results run_head(LayerRun run, int64_t slots) {
  Head head(wide_shape(slots), Head::Tie::Free, nullptr);
  Parameters parameters;
  head.add_parameters(parameters);
  ParameterMemory memory(run.context, parameters, DType::F64);
  run.context.resize_workspace(head.workspace(run.context.target()));
  Arena arena("test", Device::Cpu, 1 << 20);
  const Head::Saved saved = head.allocate(arena);
  const Tensor all = arena.take({kTokens, kHidden}, DType::F64);
  fill_normal(run.context, all, RandomStream(11, "x"), 0, 1.0);
  const PackedBatch batch(kTokens, {70, 63, 1, 40}, kVocab);
  Results results;
  const double scale = 1.0 / 170;
  for (int64_t begin = 0; begin < kTokens; begin += slots) {
    Batch part = batch.view();
    part.tokens = part.tokens.subspan(begin, slots);
    part.targets = part.targets.subspan(begin, slots);
    const Tensor x = all.rows(begin, begin + slots);
    const Tensor evaluated(std::span<double>(&results.evaluated, 1), {1});
    const Tensor trained(std::span<double>(&results.trained, 1), {1});
    head.forward(run, part, x, saved, scale, Head::Mode::Evaluate, evaluated);
    head.forward(run, part, x, saved, scale, Head::Mode::Train, trained);
    head.backward_input(run, x, saved);
  }
  EXPECT_EQ(run.context.workspace().high_water(), head.workspace(run.context.target()));
  const auto values = [](const Tensor& x) { return std::vector<double>(x.as<double>(), x.as<double>() + x.size()); };
  results.dx = values(all);
  for (const Parameter* p : parameters) (p->name == "head" ? results.dtable : results.dnorm) = values(p->gradient);
  return results;
}

// Largest difference, relative to the largest element.
double distance(const std::vector<double>& a, const std::vector<double>& b) {
  EXPECT_EQ(a.size(), b.size());
  double difference = 0, magnitude = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference = std::max(difference, std::abs(a[i] - b[i]));
    magnitude = std::max(magnitude, std::abs(b[i]));
  }
  EXPECT_GT(magnitude, 0);
  return difference / magnitude;
}

TEST(Head, TilesOfTokensAddUp) {
  ASSERT_EQ(Head::tile_tokens(wide_shape(kTokens)), 128) << "two tiles, the last one short";
  ASSERT_EQ(Head::tile_tokens(wide_shape(64)), 64) << "one tile";
  run_ranks(1, [&](Comm& world) {
    Context context({.threads = 2});
    const Results tiles = run_head({context, world}, kTokens), apart = run_head({context, world}, 64);
    // Sums over the tokens, the width and the vocabulary in another order.
    const double bound = gamma(kTokens + kHidden + kVocab, DType::F64);
    EXPECT_GT(tiles.trained, 1);
    EXPECT_EQ(tiles.trained, tiles.evaluated);
    EXPECT_NEAR(tiles.trained, apart.trained, bound * apart.trained);
    EXPECT_LT(distance(tiles.dx, apart.dx), bound);
    EXPECT_LT(distance(tiles.dtable, apart.dtable), bound);
    EXPECT_LT(distance(tiles.dnorm, apart.dnorm), bound);
  });
}

TEST(Head, NeverHoldsTheLogitsOfAllTokens) {
  const Context context({.threads = 2});
  for (const DType compute : {DType::F64, DType::F32, DType::BF16}) {
    for (const int64_t slots : {512, 4096, 16384}) {
      ModelShape shape = wide_shape(slots);
      shape.compute = compute;
      const Head head(shape, Head::Tie::Free, nullptr);
      const int64_t logits = slots * kVocab * size_of(shape.accumulation());
      EXPECT_LT(head.workspace(context.target()), logits) << name(compute) << ", " << slots << " tokens";
      // A tile's logits, in BF16 their gradient as well, and a few numbers a token.
      EXPECT_LE(head.workspace(context.target()), 3 * Head::kLogitsBytes / 2 + (1 << 20));
    }
  }
}

}  // namespace
}  // namespace tessera::testing
