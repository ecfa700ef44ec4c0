// What users see of the layers' statements: FLOPs of a step, the balance of stages, parameters of tables.
#include "model/cost.h"

#include <gtest/gtest.h>

#include "parallel/comm/comm_threads.h"
#include "tests/model/whole_model.h"

namespace tessera::testing {
namespace {

class CostTest : public ::testing::TestWithParam<Family> {
 protected:
  PackedBatch batch_{kSlots, kDocuments, 53};
};

// The formulas of Kaplan et al. 2020 and Chowdhery et al. 2022, for the two families.
TEST_P(CostTest, FlopsOfAStepAreThoseOfTheFormulas) {
  const bool llama = GetParam() == Family::Llama;
  for (const int tp : {1, 2}) {
    const ModelShape shape = small_shape(GetParam(), kSlots, DType::BF16, tp, tp - 1);
    const double attention = 2.0 * 32 * 4 * (2 * 8 + 2 * (llama ? 4 : 8)), mlp = 2.0 * 32 * 48 * (llama ? 3 : 2);
    const StepFlops flops = step_flops(shape, 1000, 12345);
    EXPECT_EQ(flops.matrices, 3 * 1000 * 2 * (attention + mlp));
    EXPECT_EQ(flops.attention, 3 * 12345.0 * 4 * 4 * 8) << "two products for each head, each a multiply and an add";
    EXPECT_EQ(flops.head, 3 * 1000 * 2.0 * 32 * 53);
    EXPECT_EQ(flops.sum(), flops.matrices + flops.attention + flops.head);
  }
}

// What is reported as FLOPs of products is what a real step counts.
TEST_P(CostTest, ProductsOfAStepAreThoseThatRun) {
  run_ranks(1, [&](Comm& world) {
    WholeModel rig(small_shape(GetParam(), kSlots), world);
    const int64_t before = rig.context.matrix_flops();
    rig.step(batch_.view());
    const StepFlops flops = step_flops(rig.model.shape(), kSlots, 0);
    EXPECT_EQ(static_cast<double>(rig.context.matrix_flops() - before), flops.sum());
  });
}

TEST_P(CostTest, StagesAreBalancedByEachLayersOwnCost) {
  ModelShape shape = small_shape(GetParam(), 256);
  set_layers(shape, 4);
  const ModelCost equal = stage_cost(shape, 128);
  ASSERT_EQ(equal.blocks.size(), 4u);
  EXPECT_EQ(equal.blocks, std::vector<double>(4, equal.blocks[0]));
  EXPECT_EQ(equal.embedding, 0);
  // Two documents of 128 tokens, of 128 * 129 / 2 pairs each.
  const StepFlops flops = step_flops(shape, 256, 4 * 2 * 128.0 * 129 / 2);
  EXPECT_DOUBLE_EQ(4 * equal.blocks[0], flops.matrices + flops.attention);
  EXPECT_DOUBLE_EQ(equal.head, flops.head);
  EXPECT_DOUBLE_EQ(equal.sum(), flops.sum());

  set_windows(shape, {0, 16, 0, 16});
  const ModelCost windows = stage_cost(shape, 128);
  EXPECT_EQ(windows.blocks[0], equal.blocks[0]);
  EXPECT_LT(windows.blocks[1], equal.blocks[1]);
  EXPECT_EQ(windows.blocks[1], windows.blocks[3]);
}

TEST_P(CostTest, TablesAreCountedOnceEach) {
  const bool llama = GetParam() == Family::Llama;
  const ModelShape shape = small_shape(GetParam(), kSlots);
  const TableParameters tables = table_parameters(shape);
  EXPECT_EQ(tables.embedding, 53 * 32 + (llama ? 0 : 64 * 32));
  EXPECT_EQ(tables.head, 53 * 32) << "a tied model's, too";
  EXPECT_EQ(model_costs(shape, 1).sum().table_parameters, tables.embedding + (shape.tied ? 0 : tables.head));
}

INSTANTIATE_TEST_SUITE_P(Families, CostTest, ::testing::Values(Family::Llama, Family::Gpt2),
                         [](const auto& test) { return name(test.param); });

}  // namespace
}  // namespace tessera::testing
