// Every layer's backward against central differences, in F64, on one rank.
#include <gtest/gtest.h>

#include "model/attention/attention.h"
#include "model/block.h"
#include "model/feed_forward/mlp.h"
#include "model/layers/embedding.h"
#include "model/layers/head.h"
#include "model/layers/norm.h"
#include "parallel/comm/comm_threads.h"
#include "tests/model/rig.h"
#include "tests/support/central_difference.h"

namespace tessera::testing {
namespace {

constexpr int64_t kSlots = 24;
// Roundings in a row through a block: sums over the width (32) in two norms, four products and the scores, over the
// keys (24) in attention's softmax and its output, and over the inner width (48).
constexpr int64_t kChain = 7 * 32 + 2 * kSlots + 48;

// One rank, its memory, and helpers to make F64 tensors.
class LayerTest : public ::testing::TestWithParam<Family> {
 protected:
  void with_rank(const std::function<void(LayerRun)>& body) {
    run_ranks(1, [&](Comm& world) {
      Context context({.threads = 2, .workspace_bytes = 1 << 22});
      body({context, world});
    });
  }
  ModelShape shape() const { return small_shape(GetParam(), kSlots); }
  LayerKind kind() const { return shape().layers.front(); }
  Sublayer::Saved all_saved(const Sublayer& layer) {
    Sublayer::Saved saved;
    for (const SavedPart part : kSavedParts) layer.allocate(arena_, part, saved);
    return saved;
  }
  Tensor random_tensor(const Context& context, const Shape& dims, const char* what) {
    const Tensor x = arena_.take(dims, DType::F64);
    fill_normal(context, x, RandomStream(11, what), 0, 1.0);
    return x;
  }
  // Checks the gradients of all parameters, which `backward` must have accumulated.
  void check_parameters(const Parameters& parameters, const std::function<Scalar()>& f) {
    for (Parameter* p : parameters) expect_gradient_along(p->value, p->gradient, f, p->name);
  }

  Arena arena_{"test", Device::Cpu, 1 << 24};
  PackedBatch batch_{kSlots, {9, 1, 11}, 53};
};

TEST_P(LayerTest, ColumnLinear) {
  with_rank([&](LayerRun run) {
    ColumnLinear layer(shape(), "layer", {6, 5, 32}, kind().linear);
    Parameters parameters;
    layer.add_parameters(parameters);
    ParameterMemory memory(run.context, parameters, DType::F64);
    const Tensor x = random_tensor(run.context, {kSlots, 32}, "x"), y = random_tensor(run.context, {kSlots, 30}, "y");
    const Tensor dx = random_tensor(run.context, {kSlots, 32}, "dx");
    const Probe probe({kSlots, 30}, kChain);
    const auto f = [&] {
      layer.forward(run, x, y);
      return probe(y);
    };
    f();
    layer.backward_input(run, probe.gradient(), dx).wait();
    layer.backward_weight(run, probe.gradient(), x);
    expect_gradient_along(x, dx, f, "x");
    check_parameters(parameters, f);
  });
}

TEST_P(LayerTest, RowLinear) {
  with_rank([&](LayerRun run) {
    RowLinear layer(shape(), "layer", 30, 32, kind().linear);
    Parameters parameters;
    layer.add_parameters(parameters);
    ParameterMemory memory(run.context, parameters, DType::F64);
    const Tensor x = random_tensor(run.context, {kSlots, 30}, "x"), y = random_tensor(run.context, {kSlots, 32}, "y");
    const Tensor dx = random_tensor(run.context, {kSlots, 30}, "dx");
    const Probe probe({kSlots, 32}, kChain);
    const auto f = [&] {
      layer.forward(run, x, y);
      return probe(y);
    };
    f();
    layer.backward_input(run, probe.gradient(), dx);
    layer.backward_weight(run, probe.gradient(), x);
    expect_gradient_along(x, dx, f, "x");
    check_parameters(parameters, f);
  });
}

TEST_P(LayerTest, NormAddsTheResidualGradient) {
  with_rank([&](LayerRun run) {
    Norm layer(shape(), "norm");
    Parameters parameters;
    layer.add_parameters(parameters);
    ParameterMemory memory(run.context, parameters, DType::F64);
    const Norm::Saved saved = layer.allocate(arena_);
    const Tensor x = random_tensor(run.context, {kSlots, 32}, "x"), y = random_tensor(run.context, {kSlots, 32}, "y");
    const Tensor dx = random_tensor(run.context, {kSlots, 32}, "dx");
    const Probe probe({kSlots, 32}, kChain);
    const auto f = [&] {  // y and the residual x both reach the loss
      layer.forward(run.context, x, saved, y);
      return probe(y) + probe(x);
    };
    f();
    layer.backward(run.context, probe.gradient(), x, saved, probe.gradient(), dx);
    expect_gradient_along(x, dx, f, "x");
    check_parameters(parameters, f);
  });
}

TEST_P(LayerTest, Mlp) {
  with_rank([&](LayerRun run) {
    Mlp layer(shape(), kind().feed_forward, "mlp", kind().linear);
    Parameters parameters;
    layer.add_parameters(parameters);
    ParameterMemory memory(run.context, parameters, DType::F64);
    const Sublayer::Saved saved = all_saved(layer);
    const MicrobatchPlan none;
    const Tensor x = random_tensor(run.context, {kSlots, 32}, "x"), y = random_tensor(run.context, {kSlots, 32}, "y");
    const Tensor dx = random_tensor(run.context, {kSlots, 32}, "dx");
    const Probe probe({kSlots, 32}, kChain);
    const auto f = [&] {
      layer.forward(run, none, x, saved, y);
      return probe(y);
    };
    f();
    layer.backward_input(run, none, probe.gradient(), saved, dx);
    const ConstTensor order[] = {probe.gradient(), x};
    TokenGathers all(run.context, run.tp, order);
    layer.backward_weight(run, probe.gradient(), x, saved, all);
    expect_gradient_along(x, dx, f, "x");
    check_parameters(parameters, f);
  });
}

TEST_P(LayerTest, MlpBackwardAtOnce) {
  with_rank([&](LayerRun run) {
    Mlp layer(shape(), kind().feed_forward, "mlp", kind().linear);
    Parameters parameters;
    layer.add_parameters(parameters);
    ParameterMemory memory(run.context, parameters, DType::F64);
    const Sublayer::Saved saved = all_saved(layer);
    const MicrobatchPlan none;
    const Tensor x = random_tensor(run.context, {kSlots, 32}, "x"), y = random_tensor(run.context, {kSlots, 32}, "y");
    const Tensor dx = random_tensor(run.context, {kSlots, 32}, "dx");
    const Probe probe({kSlots, 32}, kChain);
    const auto f = [&] {
      layer.forward(run, none, x, saved, y);
      return probe(y);
    };
    f();
    layer.backward(run, none, probe.gradient(), x, saved, dx);
    expect_gradient_along(x, dx, f, "x");
    check_parameters(parameters, f);
  });
}

TEST_P(LayerTest, Attention) {
  with_rank([&](LayerRun run) {
    for (const int64_t window : {0, 4}) {
      ModelShape sizes = shape();
      set_windows(sizes, {window, window});
      Attention layer(sizes, sizes.layers[0].attention, "attention", kind().linear);
      Parameters parameters;
      layer.add_parameters(parameters);
      ParameterMemory memory(run.context, parameters, DType::F64);
      const Sublayer::Saved saved = all_saved(layer);
      MicrobatchPlan plan = plan_of(sizes, arena_);
      plan.make(run.context, batch_.view());
      const Tensor x = random_tensor(run.context, {kSlots, 32}, "x"), y = random_tensor(run.context, {kSlots, 32}, "y");
      const Tensor dx = random_tensor(run.context, {kSlots, 32}, "dx");
      const Probe probe({kSlots, 32}, kChain);
      const auto f = [&] {
        layer.forward(run, plan, x, saved, y);
        return probe(y);
      };
      f();
      layer.backward_input(run, plan, probe.gradient(), saved, dx);
      const ConstTensor order[] = {probe.gradient(), x};
      TokenGathers all(run.context, run.tp, order);
      layer.backward_weight(run, probe.gradient(), x, saved, all);
      expect_gradient_along(x, dx, f, "x");
      check_parameters(parameters, f);
    }
  });
}

TEST_P(LayerTest, Block) {
  with_rank([&](LayerRun run) {
    Block layer(shape(), 0, Recompute::None);
    Parameters parameters;
    layer.add_parameters(parameters);
    ParameterMemory memory(run.context, parameters, DType::F64);
    const Block::Saved saved = layer.allocate(arena_, Block::Portion::Kept);
    MicrobatchPlan plan = plan_of(shape(), arena_);
    plan.make(run.context, batch_.view());
    const Tensor x = random_tensor(run.context, {kSlots, 32}, "x"), y = random_tensor(run.context, {kSlots, 32}, "y");
    const Probe probe({kSlots, 32}, kChain);
    const Tensor dx = random_tensor(run.context, {kSlots, 32}, "dx");
    const auto f = [&] {
      layer.forward(run, plan, x, saved, y);
      return probe(y);
    };
    f();
    std::copy_n(x.as<double>(), x.size(), dx.as<double>());  // the gradient takes the input's place
    layer.backward_input(run, plan, dx, saved, probe.gradient());
    const auto order = Block::gathers(saved, probe.gradient());
    TokenGathers all(run.context, run.tp, order);
    layer.backward_weight(run, saved, probe.gradient(), all);
    expect_gradient_along(x, dx, f, "x");
    check_parameters(parameters, f);
  });
}

TEST_P(LayerTest, Embedding) {
  with_rank([&](LayerRun run) {
    Embedding layer(shape());
    Parameters parameters;
    layer.add_parameters(parameters);
    ParameterMemory memory(run.context, parameters, DType::F64);
    const Tensor y = random_tensor(run.context, {kSlots, 32}, "y");
    const Probe probe({kSlots, 32}, kChain);
    const auto f = [&] {
      layer.forward(run, batch_.view(), y);
      return probe(y);
    };
    layer.backward_weight(run, batch_.view(), probe.gradient());
    check_parameters(parameters, f);
  });
}

TEST_P(LayerTest, Head) {
  with_rank([&](LayerRun run) {
    Head layer(shape(), Head::Tie::Free, nullptr);
    Parameters parameters;
    layer.add_parameters(parameters);
    ParameterMemory memory(run.context, parameters, DType::F64);
    const Head::Saved saved = layer.allocate(arena_);
    const Tensor x = random_tensor(run.context, {kSlots, 32}, "x"), dx = random_tensor(run.context, {kSlots, 32}, "dx");
    const double scale = 1.0 / 18;
    const auto forward = [&](Head::Mode mode) {
      double loss = 1;  // added to
      layer.forward(run, batch_.view(), x, saved, scale, mode, Tensor(std::span<double>(&loss, 1), {1}));
      return loss - 1;
    };
    const auto loss = [&] { return forward(Head::Mode::Evaluate); };
    // A token's loss is the logarithm of a sum less a logit: neither is larger than the loss by more than the largest
    // logit, here of order one.
    const auto f = [&]() -> Scalar { return {loss(), loss() + 1, kChain + 53}; };
    const double trained = forward(Head::Mode::Train);
    std::copy_n(x.as<double>(), x.size(), dx.as<double>());
    layer.backward_input(run, dx, saved);
    EXPECT_EQ(trained, loss());
    expect_gradient_along(x, dx, f, "x");
    check_parameters(parameters, f);
  });
}

INSTANTIATE_TEST_SUITE_P(Families, LayerTest, ::testing::Values(Family::Llama, Family::Gpt2),
                         [](const auto& test) { return name(test.param); });

}  // namespace
}  // namespace tessera::testing
