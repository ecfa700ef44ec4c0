// The whole model on one microbatch: against a plain reference, against central differences, across tensor-parallel
// sizes, and its statements of cost against counters.
#include "model/transformer.h"

#include <gtest/gtest.h>

#include "parallel/comm_threads.h"
#include "tests/model/reference_model.h"
#include "tests/model/rig.h"
#include "tests/support/gradient_check.h"

namespace tessera::testing {
namespace {

constexpr int64_t kSlots = 32;
const std::vector<int> kDocuments{13, 1, 7, 8};  // and three slots of padding
constexpr double kScale = 1.0 / 25;              // 29 tokens, of which 4 end a document

// A model of one rank with memory, ready to run.
struct Model {
  Model(const ModelShape& shape, Comm& tp)
      : context({.threads = 1}),
        model(shape, 1),
        memory((model.allocate(context, tp), context), model.parameters(), shape.compute) {
    context.resize_workspace(model.workspace_bytes(context));
  }
  double step(const Batch& batch) {
    const double loss = model.forward(context, batch, 0, kScale);
    model.backward_input(context, batch, 0);
    model.backward_weight(context, batch, 0);
    return loss;
  }

  Context context;
  Transformer model;
  ParameterMemory memory;
};

class TransformerTest : public ::testing::TestWithParam<Family> {
 protected:
  PackedBatch batch_{kSlots, kDocuments, 53};
};

TEST_P(TransformerTest, LossEqualsThePlainReference) {
  for (const int64_t window : {0, 3}) {
    run_ranks(1, [&](Comm& world) {
      ModelShape shape = small_shape(GetParam(), kSlots);
      shape.window = window;
      Model rig(shape, world);
      // Targets that are the next token of the same document, as the reference has them.
      for (size_t i = 0; i + 1 < batch_.tokens.size(); ++i) {
        if (batch_.targets[i] >= 0) batch_.targets[i] = batch_.tokens[i + 1];
      }
      const ReferenceModel reference(shape, rig.model.parameters());
      double expected = 0;
      for (const Segment& s : batch_.segments) {
        expected += reference.loss({batch_.tokens.begin() + s.begin, batch_.tokens.begin() + s.end});
      }
      const double loss = rig.model.evaluate(rig.context, batch_.view(), kScale);
      EXPECT_NEAR(loss, expected * kScale, 1e-12 * expected);
      EXPECT_EQ(rig.model.forward(rig.context, batch_.view(), 0, kScale), loss);
    });
  }
}

TEST_P(TransformerTest, GradientsEqualCentralDifferences) {
  run_ranks(1, [&](Comm& world) {
    Model rig(small_shape(GetParam(), kSlots), world);
    rig.step(batch_.view());
    for (Parameter* p : rig.model.parameters()) {
      check_gradient(
          p->name, p->value, p->gradient, [&] { return rig.model.evaluate(rig.context, batch_.view(), kScale); }, 2);
    }
  });
}

TEST_P(TransformerTest, TensorParallelRanksComputeTheSame) {
  std::map<std::string, std::vector<double>> whole;
  double loss = 0;
  run_ranks(1, [&](Comm& world) {
    Model rig(small_shape(GetParam(), kSlots), world);
    loss = rig.step(batch_.view());
    for (const Parameter* p : rig.model.parameters()) {
      whole[p->name].assign(p->gradient.span<double>().begin(), p->gradient.span<double>().end());
    }
  });
  for (const int tp : {2, 4}) {
    run_ranks(tp, [&](Comm& world) {
      Model rig(small_shape(GetParam(), kSlots, DType::F64, tp, world.rank()), world);
      EXPECT_NEAR(rig.step(batch_.view()), loss, 1e-13 * std::abs(loss));
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

TEST_P(TransformerTest, StatementsEqualCounters) {
  for (const DType compute : {DType::F64, DType::F32, DType::BF16}) {
    for (const int tp : {1, 2, 4}) {
      run_ranks(tp, [&](Comm& world) {
        const ModelShape shape = small_shape(GetParam(), kSlots, compute, tp, world.rank());
        Model rig(shape, world);
        const Cost cost = rig.model.cost();
        int64_t elements = 0;
        for (const Parameter* p : rig.model.parameters()) elements += p->value.size();
        EXPECT_EQ(cost.parameters, elements);
        EXPECT_EQ(rig.context.workspace().high_water(), 0);

        const auto sent = [&] { return world.traffic().total_bytes(); };
        const int64_t flops = rig.context.matrix_flops(), bytes = sent();
        rig.model.forward(rig.context, batch_.view(), 0, kScale);
        const int64_t forward_bytes = sent(), forward_flops = rig.context.matrix_flops();
        rig.model.backward_input(rig.context, batch_.view(), 0);
        const int64_t input_bytes = sent();
        rig.model.backward_weight(rig.context, batch_.view(), 0);
        EXPECT_EQ(forward_bytes - bytes, cost.forward_sent);
        EXPECT_EQ(input_bytes - forward_bytes, cost.backward_input_sent);
        EXPECT_EQ(sent() - input_bytes, cost.backward_weight_sent);
        // Forward, input gradient and weight gradient are the same number of FLOPs each; the head does all three at
        // once.
        EXPECT_EQ(rig.context.matrix_flops() - flops, 3 * cost.matrix_flops);
        EXPECT_LT(forward_flops - flops, 3 * cost.matrix_flops);
        EXPECT_LE(rig.context.workspace().high_water(), rig.model.workspace_bytes(rig.context));
      });
    }
  }
}

TEST_P(TransformerTest, PaddingChangesNothing) {
  double losses[2];
  std::vector<double> gradients[2];
  for (const int64_t slots : {int64_t{29}, kSlots}) {
    run_ranks(1, [&](Comm& world) {
      Model rig(small_shape(GetParam(), slots), world);
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

INSTANTIATE_TEST_SUITE_P(Families, TransformerTest, ::testing::Values(Family::Llama, Family::Gpt2),
                         [](const auto& test) { return name(test.param); });

}  // namespace
}  // namespace tessera::testing
