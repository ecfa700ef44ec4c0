// A stage's statement of its workspace is what its calls take, to the byte.
#include <gtest/gtest.h>

#include "parallel/comm/comm_threads.h"
#include "tests/model/whole_model.h"

namespace tessera::testing {
namespace {

struct Setting {
  Family family;
  DType compute = DType::F64;
  ProductFormat inner = ProductFormat::Compute;
  int tp = 1, threads = 1;
  Recompute recompute = Recompute::None;
  Overlap overlap = Overlap::On;
};

std::string text(const Setting& s) {
  return std::string(testing::name(s.family)) + " " + tessera::name(s.compute) +
         (s.inner == ProductFormat::Fp8 ? " with FP8" : "") + ", tp " + std::to_string(s.tp) + ", threads " +
         std::to_string(s.threads) + ", recompute " + tessera::name(s.recompute) +
         (s.overlap == Overlap::On ? ", overlap" : "");
}

// Every call of a step and of an evaluation, for a stage that has all parts.
void expect_exact(const Setting& s) {
  SCOPED_TRACE(text(s));
  run_ranks(s.tp, [&](Comm& world) {
    ModelShape shape = small_shape(s.family, kSlots, s.compute, s.tp, world.rank());
    set_layers(shape, 3);
    shape.ffn = 64;  // operands of 8-bit products have multiples of 16
    set_inner_products(shape, s.inner);
    Context context({.threads = s.threads});
    Transformer model(shape, {.part = {.last_block = 3},
                              .recompute = std::vector<Recompute>(3, s.recompute),
                              .areas = 3,
                              .overlap = s.overlap});
    model.allocate(context, world);
    ParameterMemory memory(context, model.parameters(), shape.compute);
    context.resize_workspace(model.workspace_bytes({Device::Cpu, s.threads}));
    const PackedBatch packed(kSlots, kDocuments, 53);
    const Batch batch = packed.view();
    const BlockRange all{0, 3};
    model.clear_loss(context);
    model.evaluate(context, batch, {}, all, kScale);
    for (const bool in_a_row : {false, true}) {
      model.forward(context, batch, {}, all, kScale);
      model.recompute(context, batch, {}, all);
      if (in_a_row) {
        model.backward(context, batch, {}, all);
      } else {
        model.backward_input(context, batch, {}, all);
        model.backward_weight(context, batch, {}, all);
      }
    }
    const int64_t stated = model.workspace_bytes(context.target());
    // Attention states one scratch for both of its passes. Forward's alone is smaller, which shows only where forward
    // keeps the most in the workspace: with recomputation.
    if (s.recompute == Recompute::None)
      EXPECT_EQ(context.workspace().high_water(), stated);
    else
      EXPECT_LE(context.workspace().high_water(), stated);
  });
}

TEST(Workspace, IsWhatAStageTakes) {
  for (const Family family : {Family::Llama, Family::Gpt2}) {
    for (const DType compute : {DType::F64, DType::F32, DType::BF16}) {
      for (const int tp : {1, 2, 4}) expect_exact({.family = family, .compute = compute, .tp = tp});
    }
    for (const Recompute mode : {Recompute::Selective, Recompute::Full}) {
      for (const Overlap overlap : {Overlap::On, Overlap::Off})
        expect_exact({.family = family, .tp = 2, .recompute = mode, .overlap = overlap});
    }
    for (const int threads : {2, 5}) expect_exact({.family = family, .threads = threads});
    for (const int tp : {1, 2})
      expect_exact({.family = family, .compute = DType::BF16, .inner = ProductFormat::Fp8, .tp = tp});
  }
}

}  // namespace
}  // namespace tessera::testing
