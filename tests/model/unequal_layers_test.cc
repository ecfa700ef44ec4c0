// Models whose layers differ: in parameters, in rotations, in windows.
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <type_traits>

#include "model/attention/attention.h"
#include "model/feed_forward/mlp.h"
#include "model/transformer.h"
#include "parallel/comm/comm_threads.h"
#include "tests/model/reference_model.h"
#include "tests/model/whole_model.h"

namespace tessera::testing {
namespace {

// Layers with biases and without, by turns: they have eight parameters and four beside their norms.
ModelShape unequal_shape(Family family) {
  ModelShape shape = small_shape(family, kSlots);
  set_layers(shape, 4);
  for (size_t i = 0; i < shape.layers.size(); ++i)
    shape.layers[i].linear.bias = i % 2 == 0 ? BiasKind::Bias : BiasKind::None;
  return shape;
}

class UnequalLayersTest : public ::testing::TestWithParam<Family> {
 protected:
  PackedBatch batch_{kSlots, kDocuments, 53};
};

TEST_P(UnequalLayersTest, ParametersAreNumberedAlikeHoweverStagesAreCut) {
  const ModelShape shape = unequal_shape(GetParam());
  Transformer whole(shape, {.part = {.last_block = 4}});
  std::map<std::string, int64_t> ordinals;
  std::set<int64_t> taken;
  for (const Parameter* p : whole.parameters()) {
    ordinals[p->name] = p->ordinal;
    EXPECT_TRUE(taken.insert(p->ordinal).second) << p->name << " shares its number";
    EXPECT_LT(p->ordinal, p->ordinals);
  }
  for (int cut = 1; cut < 4; ++cut) {
    Transformer begin(shape, {.part = {.stage = 0, .stages = 2, .first_block = 0, .last_block = cut}});
    Transformer end(shape, {.part = {.stage = 1, .stages = 2, .first_block = cut, .last_block = 4}});
    for (Transformer* stage : {&begin, &end}) {
      for (const Parameter* p : stage->parameters()) {
        EXPECT_EQ(p->ordinal, ordinals.at(p->name)) << p->name << " with the cut before block " << cut;
        EXPECT_EQ(p->ordinals, whole.parameters().front()->ordinals);
        const int first = stage == &begin ? 0 : cut;
        EXPECT_EQ(p->stage, stage == &begin ? 0 : 1);
        if (p->name.starts_with("blocks.")) {
          EXPECT_EQ("blocks." + std::to_string(first + p->block), p->name.substr(0, p->name.find('.', 7))) << p->name;
        }
      }
    }
  }
}

TEST_P(UnequalLayersTest, StatementsAreThoseOfTheLayers) {
  run_ranks(1, [&](Comm& world) {
    WholeModel rig(unequal_shape(GetParam()), world);
    int64_t elements = 0;
    for (const Parameter* p : rig.model.parameters()) elements += p->value.size();
    EXPECT_EQ(rig.model.cost().parameters, elements);
    const PartCosts costs = rig.model.costs();
    EXPECT_GT(costs.blocks[0].parameters, costs.blocks[1].parameters);
    EXPECT_EQ(costs.blocks[0].parameters, costs.blocks[2].parameters);
    const int64_t before = rig.context.matrix_flops();
    rig.step(batch_.view());
    EXPECT_EQ(rig.context.matrix_flops() - before, 3 * costs.sum().matrix_flops);
  });
}

// Recomputation and the order of backward change no bit where neighbours differ.
TEST_P(UnequalLayersTest, EveryWayThroughAStepGivesTheSameBits) {
  run_ranks(1, [&](Comm& world) {
    WholeModel plain(unequal_shape(GetParam()), world);
    const double loss = plain.step(batch_.view());
    const std::vector<double> expected = all_gradients(plain.model.parameters());
    for (const Recompute mode : {Recompute::None, Recompute::Selective, Recompute::Full}) {
      for (const Backward backward : {Backward::Apart, Backward::InARow}) {
        WholeModel rig(unequal_shape(GetParam()), world, mode);
        EXPECT_EQ(rig.step(batch_.view(), backward), loss);
        EXPECT_EQ(all_gradients(rig.model.parameters()), expected) << name(mode);
      }
    }
  });
}

// A layer may have rotations of another base than its neighbour, or none.
TEST(LayerKinds, RotationsAreTheLayersOwn) {
  run_ranks(1, [&](Comm& world) {
    PackedBatch batch(kSlots, kDocuments, 53);
    const std::span<int32_t> tokens = batch.array(&Batch::tokens), targets = batch.array(&Batch::targets);
    for (size_t i = 0; i + 1 < tokens.size(); ++i) {
      if (targets[i] >= 0) targets[i] = tokens[i + 1];
    }
    std::set<double> losses;
    for (const std::vector<double>& thetas :
         {std::vector<double>{10000, 10000}, {10000, 100}, {100, 10000}, {10000, 0}, {0, 0}}) {
      ModelShape shape = small_shape(Family::Llama, kSlots);
      for (size_t i = 0; i < thetas.size(); ++i) shape.layers[i].attention.rope_theta = thetas[i];
      WholeModel rig(shape, world);
      const ReferenceModel reference(shape, rig.model.parameters());
      double expected = 0;
      for (const Segment& s : batch.view().segments)
        expected += reference.loss({tokens.begin() + s.begin, tokens.begin() + s.end});
      const double loss = rig.evaluate(batch.view());
      EXPECT_NEAR(loss, expected * kScale, 1e-12 * expected);
      EXPECT_TRUE(losses.insert(loss).second) << "another model had the same loss";
    }
  });
}

// Layers that differ only where a plan does not look share it, and each base of rotations has one table.
TEST(LayerKinds, EqualKindsShareTheirPlan) {
  const auto bytes = [](const std::vector<LayerKind>& layers) {
    ModelShape shape = small_shape(Family::Llama, kSlots);
    shape.layers = layers;
    Arena tally = Arena::tally();
    plan_of(shape, tally);
    return tally.used();
  };
  const LayerKind plain{}, windowed{.attention = {.window = 4}}, biased{.linear = {.bias = BiasKind::Bias}};
  const LayerKind other{.attention = {.rope_theta = 100}}, unrotated{.attention = {.rope_theta = 0}};
  const int64_t one = bytes({plain}), table = one - bytes({unrotated});
  EXPECT_GT(table, 0);
  EXPECT_EQ(bytes({plain, plain, biased}), one);
  EXPECT_EQ(bytes({plain, unrotated}), one);
  EXPECT_EQ(bytes({plain, other}), one + table);
  EXPECT_EQ(bytes({plain, windowed}), 2 * one - table) << "tiles of their own, and the same rotations";
}

// They hand out addresses of their members, which a copy or a move would leave behind.
template <class Layer>
constexpr bool kStays = !std::is_copy_constructible_v<Layer> && !std::is_move_constructible_v<Layer> &&
                        !std::is_copy_assignable_v<Layer> && !std::is_move_assignable_v<Layer>;
static_assert(kStays<ColumnLinear> && kStays<RowLinear> && kStays<Norm> && kStays<Embedding> && kStays<Head>);
static_assert(kStays<Attention> && kStays<Mlp> && kStays<Block> && kStays<Transformer>);

INSTANTIATE_TEST_SUITE_P(Families, UnequalLayersTest, ::testing::Values(Family::Llama, Family::Gpt2),
                         [](const auto& test) { return name(test.param); });

}  // namespace
}  // namespace tessera::testing
