// The whole model on one microbatch: against a plain reference, against central differences, across tensor-parallel
// sizes, and its statements of cost against counters.
#include "model/transformer.h"

#include <gtest/gtest.h>

#include <cstring>

#include "model/attention/context_attention.h"
#include "parallel/comm/comm_threads.h"
#include "tests/model/reference_model.h"
#include "tests/model/whole_model.h"
#include "tests/support/central_difference.h"

namespace tessera::testing {
namespace {

class TransformerTest : public ::testing::TestWithParam<Family> {
 protected:
  PackedBatch batch_{kSlots, kDocuments, 53};
};

// As model_shape sets them for the maximal update parametrisation.
ModelShape maximal_update(ModelShape shape) {
  shape.width_ratio = 4;
  shape.output_scale = 0.75 / 4;
  shape.attention_multiplier = 3;
  return shape;
}

TEST_P(TransformerTest, LossEqualsThePlainReference) {
  for (const std::vector<int64_t>& windows : {std::vector<int64_t>{}, {3, 3}, {0, 3}, {5, 2}, {-1}}) {
    run_ranks(1, [&](Comm& world) {
      ModelShape shape = small_shape(GetParam(), kSlots);
      if (windows == std::vector<int64_t>{-1})
        shape = maximal_update(shape);
      else
        set_windows(shape, windows);
      WholeModel rig(shape, world);
      // Targets that are the next token of the same document, as the reference has them.
      const Batch batch = batch_.view();
      for (int64_t i = 0; i + 1 < batch.slots(); ++i) {
        if (batch.targets[i] >= 0) batch_.array(&Batch::targets)[i] = batch.tokens[i + 1];
      }
      const ReferenceModel reference(shape, rig.model.parameters());
      double expected = 0;
      for (const Segment& s : batch.segments) {
        expected += reference.loss({batch.tokens.begin() + s.begin, batch.tokens.begin() + s.end});
      }
      const double loss = rig.evaluate(batch_.view());
      EXPECT_NEAR(loss, expected * kScale, 1e-12 * expected);
      EXPECT_EQ(rig.forward(batch_.view()), loss);
    });
  }
}

TEST_P(TransformerTest, GradientsEqualCentralDifferences) {
  for (const bool maximal : {false, true})
    run_ranks(1, [&](Comm& world) {
      const ModelShape shape = small_shape(GetParam(), kSlots);
      WholeModel rig(maximal ? maximal_update(shape) : shape, world);
      rig.step(batch_.view());
      // Two blocks, a norm and the head: sums over the width, the inner width, the keys and the vocabulary.
      constexpr int64_t kChain = 2 * (7 * 32 + 2 * kSlots + 48) + 2 * 32 + 53;
      const auto f = [&]() -> Scalar {
        const double loss = rig.evaluate(batch_.view());
        return {loss, loss + 1, kChain};  // a mean of logarithms of sums less logits, which are of order one
      };
      for (Parameter* p : rig.model.parameters()) expect_gradient_along(p->value, p->gradient, f, p->name, 2);
    });
}

TEST_P(TransformerTest, RecomputationChangesNoBit) {
  for (const int tp : {1, 2}) {
    run_ranks(tp, [&](Comm& world) {
      const ModelShape shape = small_shape(GetParam(), kSlots, DType::F64, tp, world.rank());
      WholeModel plain(shape, world);
      const double loss = plain.step(batch_.view());
      const std::vector<double> expected = all_gradients(plain.model.parameters());
      int64_t slot_bytes = plain.model.slot_bytes();
      for (const Recompute mode : {Recompute::Selective, Recompute::Full}) {
        WholeModel rig(shape, world, mode);
        EXPECT_EQ(rig.step(batch_.view()), loss);
        EXPECT_EQ(all_gradients(rig.model.parameters()), expected) << name(mode);
        EXPECT_LT(rig.model.slot_bytes(), slot_bytes) << name(mode) << " keeps less";
        EXPECT_LE(rig.context.workspace().high_water(), rig.model.workspace_bytes(rig.context.target()));
        slot_bytes = rig.model.slot_bytes();
      }
    });
  }
}

// Backward block by block, in each mode a block may have: one area is enough.
TEST_P(TransformerTest, BlocksRunOneByOne) {
  run_ranks(1, [&](Comm& world) {
    const ModelShape shape = small_shape(GetParam(), kSlots);
    WholeModel plain(shape, world);
    const double loss = plain.step(batch_.view());
    Context context({.threads = 1});
    Transformer model(shape,
                      {.part = {.last_block = 2}, .recompute = {Recompute::Full, Recompute::Selective}, .areas = 1});
    model.allocate(context, world);
    context.resize_workspace(model.workspace_bytes(context.target()));
    ParameterMemory memory(context, model.parameters(), shape.compute);
    const Batch batch = batch_.view();
    model.clear_loss(context);
    model.forward(context, batch, {}, {0, 1}, kScale);
    EXPECT_EQ(model.loss(context), 0.0);
    model.forward(context, batch, {}, {1, 2}, kScale);
    EXPECT_EQ(model.loss(context), loss);
    for (const BlockRange block : {BlockRange{1, 2}, BlockRange{0, 1}}) {
      model.recompute(context, batch, {}, block);
      model.backward_input(context, batch, {}, block);
      model.backward_weight(context, batch, {}, block);
    }
    EXPECT_EQ(all_gradients(model.parameters()), all_gradients(plain.model.parameters()));
    EXPECT_THROW(model.backward_input(context, batch, {}, {0, 1}), InternalError);  // not made again
  });
}

// Two stages, the first's output the second's input, are the whole.
TEST_P(TransformerTest, StagesMakeUpTheWhole) {
  run_ranks(1, [&](Comm& world) {
    const ModelShape shape = small_shape(GetParam(), kSlots);
    WholeModel plain(shape, world);
    const double loss = plain.step(batch_.view());
    std::map<std::string, std::vector<double>> expected;
    std::map<std::string, int64_t> ordinals;
    for (const Parameter* p : plain.model.parameters()) {
      expected[p->name] = {p->gradient.span<double>().begin(), p->gradient.span<double>().end()};
      ordinals[p->name] = p->ordinal;
    }
    Context context({.threads = 1});
    Transformer begin(shape,
                      {.part = {.stage = 0, .stages = 2, .first_block = 0, .last_block = 1}, .ends_together = true});
    Transformer end(shape, {.part = {.stage = 1, .stages = 2, .first_block = 1, .last_block = 2},
                            .ends_together = true,
                            .embedding_stage = &begin});
    begin.allocate(context, world);
    end.allocate(context, world);
    context.resize_workspace(std::max(begin.workspace_bytes(context.target()), end.workspace_bytes(context.target())));
    Parameters parameters = begin.parameters();
    parameters.insert(parameters.end(), end.parameters().begin(), end.parameters().end());
    ParameterMemory memory(context, parameters, shape.compute);
    for (Parameter* p : parameters) {
      if (p->tied_to != nullptr) p->value = p->tied_to->value;
    }
    const Batch batch = batch_.view();
    const SlotRef ref{.slot = 0, .input = begin.output(0)};
    end.clear_loss(context);
    begin.forward(context, batch, {}, {0, 1}, kScale);
    EXPECT_EQ(begin.loss(context), 0.0);
    end.forward(context, batch, ref, {0, 1}, kScale);
    EXPECT_EQ(end.loss(context), loss);
    end.backward_input(context, batch, ref, {0, 1});
    begin.backward_input(context, batch, {}, {0, 1});
    end.backward_weight(context, batch, ref, {0, 1});
    begin.backward_weight(context, batch, {}, {0, 1});
    std::map<std::string, std::vector<double>> found;
    for (const Parameter* p : parameters) {
      std::vector<double>& sum = found[p->name];
      sum.resize(p->gradient.size());
      for (int64_t i = 0; i < p->gradient.size(); ++i) sum[i] += p->gradient.as<double>()[i];
      EXPECT_EQ(p->ordinal, ordinals.at(p->name)) << p->name;
      EXPECT_LT(p->ordinal, p->ordinals);
    }
    for (auto& [name, values] : expected) {
      // The two parts of a tied table are added up in another order.
      const double tolerance = shape.tied && name == "embedding" ? 1e-15 : 0.0;
      for (size_t i = 0; i < values.size(); ++i) ASSERT_NEAR(found.at(name)[i], values[i], tolerance) << name;
    }
    const BlockRange whole{0, 1};
    end.clear_loss(context);
    end.evaluate(context, batch, ref, whole, kScale);
    const double once = end.loss(context);
    end.evaluate(context, batch, ref, whole, kScale);
    EXPECT_EQ(end.loss(context), 2 * once);  // all since clear_loss()
  });
}

TEST_P(TransformerTest, TensorParallelRanksComputeTheSame) {
  std::map<std::string, std::vector<double>> whole;
  double loss = 0;
  run_ranks(1, [&](Comm& world) {
    WholeModel rig(small_shape(GetParam(), kSlots), world);
    loss = rig.step(batch_.view());
    for (const Parameter* p : rig.model.parameters()) {
      whole[p->name].assign(p->gradient.span<double>().begin(), p->gradient.span<double>().end());
    }
  });
  for (const int tp : {2, 4}) {
    run_ranks(tp, [&](Comm& world) {
      WholeModel rig(small_shape(GetParam(), kSlots, DType::F64, tp, world.rank()), world);
      EXPECT_NEAR(rig.step(batch_.view(), Backward::InARow), loss, 1e-13 * std::abs(loss));
      for (const Parameter* p : rig.model.parameters()) {
        if (p->replicas.has(Axis::Tp)) world.all_reduce_sum(p->gradient);  // each rank has its own tokens' part
        const double* expected = whole.at(p->name).data() + p->rows.begin * p->global_shape.row_size();
        double norm = 0, difference = 0;
        for (int64_t i = 0; i < p->gradient.size(); ++i) {
          norm += expected[i] * expected[i];
          difference += std::pow(p->gradient.as<double>()[i] - expected[i], 2);
        }
        EXPECT_LE(std::sqrt(difference), 1e-12 * std::sqrt(norm)) << p->name << " at tp " << tp;
      }
    });
  }
}

// The residual stream after the first block has the bits of BF16, after the second not; a model that has no block
// between the first and the last is the one of BF16.
TEST_P(TransformerTest, OnlyInnerBlocksMultiplyIn8Bits) {
  run_ranks(1, [&](Comm& world) {
    for (const int layers : {2, 3}) {
      ModelShape shape = small_shape(GetParam(), kSlots, DType::BF16);
      set_layers(shape, layers);
      WholeModel plain(shape, world);
      set_inner_products(shape, ProductFormat::Fp8);
      WholeModel fp8(shape, world);
      const double expected = plain.evaluate(batch_.view()), loss = fp8.evaluate(batch_.view());
      const auto same_after = [&](int block) {
        const ConstTensor a = plain.model.residual(0, block), b = fp8.model.residual(0, block);
        return std::memcmp(a.data(), b.data(), static_cast<size_t>(a.bytes())) == 0;
      };
      EXPECT_TRUE(same_after(1));
      EXPECT_EQ(same_after(2), layers == 2);
      EXPECT_EQ(loss == expected, layers == 2) << loss;
      for (const Backward backward : {Backward::Apart, Backward::InARow}) {
        fp8.step(batch_.view(), backward);
        EXPECT_LE(fp8.context.workspace().high_water(), fp8.model.workspace_bytes(fp8.context.target()));
      }
    }
  });
}

TEST_P(TransformerTest, StatementsEqualCounters) {
  for (const DType compute : {DType::F64, DType::F32, DType::BF16}) {
    for (const int tp : {1, 2, 4}) {
      run_ranks(tp, [&](Comm& world) {
        const ModelShape shape = small_shape(GetParam(), kSlots, compute, tp, world.rank());
        WholeModel rig(shape, world);
        const Cost cost = rig.model.cost();
        int64_t elements = 0;
        for (const Parameter* p : rig.model.parameters()) elements += p->value.size();
        EXPECT_EQ(cost.parameters, elements);
        EXPECT_EQ(rig.context.workspace().high_water(), 0);

        const auto sent = [&] { return world.traffic().total_bytes(); };
        const int64_t flops = rig.context.matrix_flops(), bytes = sent();
        rig.model.forward(rig.context, batch_.view(), {}, rig.all(), kScale);
        const int64_t forward_bytes = sent(), forward_flops = rig.context.matrix_flops();
        rig.model.backward_input(rig.context, batch_.view(), {}, rig.all());
        const int64_t input_bytes = sent();
        rig.model.backward_weight(rig.context, batch_.view(), {}, rig.all());
        EXPECT_EQ(forward_bytes - bytes, cost.forward_sent);
        EXPECT_EQ(input_bytes - forward_bytes, cost.backward_input_sent);
        EXPECT_EQ(sent() - input_bytes, cost.backward_weight_sent);
        // Forward, input gradient and weight gradient are the same number of FLOPs each; the head does all three at
        // once.
        EXPECT_EQ(rig.context.matrix_flops() - flops, 3 * cost.matrix_flops);
        EXPECT_LT(forward_flops - flops, 3 * cost.matrix_flops);
        EXPECT_LE(rig.context.workspace().high_water(), rig.model.workspace_bytes(rig.context.target()));
      });
    }
  }
}

TEST_P(TransformerTest, PaddingChangesNothing) {
  double losses[2];
  std::vector<double> gradients[2];
  for (const int64_t slots : {int64_t{29}, kSlots}) {
    run_ranks(1, [&](Comm& world) {
      WholeModel rig(small_shape(GetParam(), slots), world);
      const int i = slots == kSlots;
      losses[i] = rig.step(PackedBatch(slots, kDocuments, 53).view());
      for (const Parameter* p : rig.model.parameters()) {
        gradients[i].insert(gradients[i].end(), p->gradient.as<double>(),
                            p->gradient.as<double>() + p->gradient.size());
      }
    });
  }
  EXPECT_NEAR(losses[0], losses[1], 1e-14 * losses[0]);
  for (size_t i = 0; i < gradients[0].size(); ++i) ASSERT_NEAR(gradients[0][i], gradients[1][i], 1e-13);
}

// The goal of context parallelism: what grows with the tokens falls as 1/cp, but for what the exchange takes.
TEST_P(TransformerTest, ActivationsAndWorkspaceFallAsTheContextIsCut) {
  constexpr int64_t kTokens = 16384;
  constexpr int kCp = 4;
  const Context context({.threads = 1});
  const auto shape_at = [&](int cp, const char* exchange) {
    ModelShape shape = small_shape(GetParam(), context_slots(kTokens, cp, 1, 0.02), DType::BF16);
    shape.hidden = 256;
    shape.head_dim = 32;
    shape.ffn = 1024;
    shape.cp = cp;
    for (LayerKind& layer : shape.layers) layer.attention.exchange = context_exchange_plan(exchange, 1).front();
    return shape;
  };
  const auto bytes = [&](const ModelShape& shape) {
    const Transformer model(shape, {.part = {.last_block = shape.blocks()}});
    return static_cast<double>(model.activations_bytes() + model.workspace_bytes(context.target()));
  };
  const double quarter = bytes(shape_at(1, "gather")) / kCp;
  for (const char* exchange : {"gather", "ring", "ulysses", "ulysses-ring:2"}) {
    const ModelShape shape = shape_at(kCp, exchange);
    const auto exchanged =
        static_cast<double>(ContextAttention(shape, shape.layers[0].attention).workspace(context.target()));
    EXPECT_LE(bytes(shape), 1.05 * quarter + exchanged) << exchange;
    EXPECT_GE(bytes(shape), quarter) << exchange;
    EXPECT_LE(exchanged, quarter) << exchange;  // or nothing would be won
  }
}

INSTANTIATE_TEST_SUITE_P(Families, TransformerTest, ::testing::Values(Family::Llama, Family::Gpt2),
                         [](const auto& test) { return name(test.param); });

}  // namespace
}  // namespace tessera::testing
