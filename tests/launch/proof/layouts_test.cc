// Any layout, one curve: tp x dp x pp up to eight ranks against one rank, both families, over twenty steps. Other
// schedules and recomputation are in pipelines_test.
//
// In F64 every loss, gradient norm and weight agrees to 1e-9. In F32 and BF16 the first step's loss and gradients agree
// to what rounding allows, and the loss after twenty steps to three times the spread that last-bit changes of the
// initial weights cause. Runs with ranks as threads, and again under mpirun.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "data/order/synthetic_source.h"
#include "launch/config/run_layout.h"
#include "launch/run.pb.h"
#include "launch/run/assembly.h"
#include "parallel/comm/comm_threads.h"
#include "parallel/pipeline.h"
#include "tensor/context/random.h"
#include "tests/support/ranks.h"

namespace tessera::testing {
namespace {

constexpr int64_t kSteps = 20;
constexpr int64_t kGlobalBatch = 8, kSequence = 16;

struct Layout {
  int tp, dp, pp;
};
constexpr Layout kAlone{1, 1, 1};
constexpr Layout kLayouts[] = {{2, 1, 1}, {1, 2, 1}, {2, 2, 1}, {4, 1, 1}, {1, 4, 1}, {4, 2, 1}, {2, 4, 1},
                               {8, 1, 1}, {1, 8, 1}, {1, 1, 2}, {2, 1, 2}, {1, 2, 2}, {2, 2, 2}, {1, 1, 3}};

int ranks_of(const Layout& layout) { return layout.tp * layout.dp * layout.pp; }
std::string name_of(const Layout& layout) { return fmt::format("tp {} dp {} pp {}", layout.tp, layout.dp, layout.pp); }

RunConfig small_config(ModelConfig::Family family, RunSection::ComputeDtype dtype, const Layout& layout) {
  RunConfig config;
  config.mutable_run()->set_compute_dtype(dtype);
  ModelConfig& model = *config.mutable_model();
  model.set_family(family);
  model.set_hidden_size(32);
  model.set_num_hidden_layers(3);
  model.set_num_attention_heads(8);
  model.set_num_key_value_heads(8);
  model.set_head_dim(4);
  model.set_intermediate_size(64);
  model.set_vocab_size(61);  // tp divides it nowhere; at tp 8 the last rank has five rows of eight
  model.set_max_position_embeddings(kSequence);
  model.set_tie_word_embeddings(family == ModelConfig::GPT2);
  model.set_initializer_range(0.1);
  config.mutable_parallel()->set_tp(layout.tp);
  config.mutable_parallel()->set_dp(layout.dp);
  config.mutable_parallel()->set_pp(layout.pp);
  config.mutable_data()->set_sequence_length(kSequence);
  config.mutable_data()->set_global_batch_size(kGlobalBatch);
  config.mutable_data()->set_micro_batch_size(1);
  config.mutable_optimizer()->set_max_grad_norm(1.0);
  // One family in each parametrisation.
  if (family == ModelConfig::GPT2) {
    model.set_parametrization(ModelConfig::MUP);
    model.set_mup_base_width(16);
  }
  return config;
}

struct Curve {
  std::vector<double> losses, norms;
  std::map<std::string, std::vector<double>> weights;         // this rank's rows, after the last step
  std::map<std::string, std::vector<double>> first_gradient;  // likewise, summed over replicas, after the first step
  std::map<std::string, Interval> rows;
  std::map<std::string, int64_t> row_size;
};

std::vector<double> as_doubles(const ConstTensor& x) {
  std::vector<double> values(x.size());
  dispatch_float(x.dtype(), [&]<class T>(T) {
    for (int64_t i = 0; i < x.size(); ++i) values[i] = static_cast<double>(x.as<T>()[i]);
  });
  return values;
}

// Moves every master weight by one unit in its last place, up or down by a coin.
void nudge(Assembly& parts, uint64_t coin) {
  for (const StateSlice& slice : parts.optimizer().state()) {
    if (slice.name.rfind("master/", 0) != 0) continue;
    const RandomStream random(coin, slice.name);
    dispatch_float(slice.data.dtype(), [&]<class T>(T) {
      if constexpr (!std::is_same_v<T, bf16>) {
        for (int64_t i = 0; i < slice.data.size(); ++i) {
          T& w = slice.data.as<T>()[i];
          w = std::nextafter(w, static_cast<T>(random.bits(i) % 2 ? INFINITY : -INFINITY));
        }
      }
    });
  }
  parts.optimizer().state_loaded(parts.context());
}

Curve train(const RunConfig& config, Comm& world, uint64_t coin = 0) {
  Assembly parts(config, plan_layout(config), world, 1);
  if (coin != 0) nudge(parts, coin);
  SyntheticSource source({.vocab = config.model().vocab_size(),
                          .sequence_length = kSequence,
                          .global_batch_size = kGlobalBatch,
                          .dp = parts.mesh().extent(Axis::Dp),
                          .dp_rank = parts.mesh().coordinate(Axis::Dp)});
  const std::unique_ptr<Pipeline> pipeline = parts.training(source);
  Curve curve;
  for (int64_t step = 1; step <= kSteps; ++step) {
    const StepResult result = pipeline->step(parts.context(), (step - 1) * kGlobalBatch, 1e-2, step);
    curve.losses.push_back(result.loss);
    curve.norms.push_back(result.gradient_norm);
    if (step > 1) continue;
    for (const Parameter* p : parts.parameters()) curve.first_gradient[p->name] = as_doubles(p->gradient);
  }
  for (const Parameter* p : parts.parameters()) {
    curve.weights[p->name] = as_doubles(p->value);
    curve.rows[p->name] = p->rows;
    curve.row_size[p->name] = p->global_shape.row_size();
  }
  return curve;
}

Curve train_alone(const RunConfig& config, uint64_t coin = 0) {
  Curve curve;
  tessera::run_ranks(1, [&](Comm& world) { curve = train(config, world, coin); });
  return curve;
}

// Largest difference, over parameters, of this rank's rows from the whole tensors of `one`: relative to the norm of the
// whole.
double relative_difference(const Curve& part, const std::map<std::string, std::vector<double>>& mine,
                           const std::map<std::string, std::vector<double>>& one) {
  double worst = 0;
  for (const auto& [name, values] : mine) {
    const std::vector<double>& whole = one.at(name);
    const int64_t offset = part.rows.at(name).begin * part.row_size.at(name);
    double difference = 0, norm = 0;
    for (size_t i = 0; i < values.size(); ++i) difference += std::pow(values[i] - whole[offset + i], 2);
    for (const double w : whole) norm += w * w;
    worst = std::max(worst, std::sqrt(difference / norm));
  }
  return worst;
}

class LayoutsTest : public ::testing::TestWithParam<ModelConfig::Family> {};

TEST_P(LayoutsTest, InF64AllLayoutsAreOneCurve) {
  const Curve one = train_alone(small_config(GetParam(), RunSection::F64, kAlone));
  EXPECT_LT(one.losses.back(), one.losses.front());  // it does train
  for (const Layout& layout : kLayouts) {
    run_ranks(ranks_of(layout), [&](Comm& world) {
      const Curve curve = train(small_config(GetParam(), RunSection::F64, layout), world);
      for (int64_t s = 0; s < kSteps; ++s) {
        ASSERT_NEAR(curve.losses[s], one.losses[s], 1e-9) << name_of(layout) << " step " << s;
        ASSERT_NEAR(curve.norms[s], one.norms[s], 1e-9) << name_of(layout) << " step " << s;
      }
      ASSERT_TRUE(layout.pp > 1 || curve.weights.size() == one.weights.size());
      for (const auto& [name, values] : curve.weights) {
        const int64_t offset = curve.rows.at(name).begin * curve.row_size.at(name);
        for (size_t i = 0; i < values.size(); ++i) {
          ASSERT_NEAR(values[i], one.weights.at(name)[offset + i], 1e-9)
              << name << " element " << i << " " << name_of(layout);
        }
      }
    });
  }
}

// Roundings to the compute dtype on the longest path from an input to a gradient: 12 a block and 3 outside, forward and
// backward, and once more for the weight gradient's own product. Two runs each carry that error, worst case, relative
// to the norm.
double rounding_bound(DType compute, int64_t layers) {
  const double roundings = 2.0 * (12.0 * static_cast<double>(layers) + 3.0) + 1.0;
  return 2 * roundings * unit_roundoff(compute);
}

TEST_P(LayoutsTest, InLowPrecisionLayoutsDifferByRounding) {
  for (const RunSection::ComputeDtype dtype : {RunSection::F32, RunSection::BF16}) {
    const RunConfig alone = small_config(GetParam(), dtype, kAlone);
    const Curve one = train_alone(alone);
    double spread = 0;
    for (uint64_t coin = 1; coin <= 4; ++coin) {
      spread = std::max(spread, std::abs(train_alone(alone, coin).losses.back() - one.losses.back()));
    }
    ASSERT_GT(spread, 0);
    const double bound = rounding_bound(compute_dtype(alone), alone.model().num_hidden_layers());
    for (const Layout& layout : kLayouts) {
      run_ranks(ranks_of(layout), [&](Comm& world) {
        const Curve curve = train(small_config(GetParam(), dtype, layout), world);
        const std::string where = fmt::format("{} {}", RunSection::ComputeDtype_Name(dtype), name_of(layout));
        EXPECT_NEAR(curve.losses.front(), one.losses.front(), bound * one.losses.front()) << where;
        EXPECT_LE(relative_difference(curve, curve.first_gradient, one.first_gradient), bound) << where;
        EXPECT_NEAR(curve.losses.back(), one.losses.back(), 3 * spread) << where;
      });
    }
  }
}

TEST_P(LayoutsTest, TheSameRunTwiceIsBitwiseEqual) {
  for (const RunSection::ComputeDtype dtype : {RunSection::F32, RunSection::BF16}) {
    run_ranks(4, [&](Comm& world) {
      const RunConfig config = small_config(GetParam(), dtype, {2, 2, 1});
      const Curve a = train(config, world), b = train(config, world);
      EXPECT_EQ(a.losses, b.losses);
      EXPECT_EQ(a.norms, b.norms);
      EXPECT_EQ(a.weights, b.weights);
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Families, LayoutsTest, ::testing::Values(ModelConfig::LLAMA, ModelConfig::GPT2),
                         [](const auto& test) { return ModelConfig::Family_Name(test.param); });

}  // namespace
}  // namespace tessera::testing
