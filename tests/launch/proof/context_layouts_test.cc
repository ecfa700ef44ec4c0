// Any layout, one curve, for context parallelism: every exchange, packing and family over cp 2 and 4 against one rank,
// and products with tp, pp, dp, ZeRO, schedules, recomputation, windows and exchanges by layer. In F64 every loss,
// gradient norm and weight agrees to 1e-9. Ranks are threads; a subset runs again under mpirun.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "launch/config/resolve.h"
#include "launch/config/run_layout.h"
#include "launch/run.pb.h"
#include "launch/run/assembly.h"
#include "parallel/comm/comm_threads.h"
#include "parallel/pipeline.h"
#include "tensor/context/random.h"
#include "tests/support/ranks.h"

namespace tessera::testing {
namespace {

constexpr int64_t kSequence = 256, kSteps = 2, kVocabulary = 31;  // tp divides it nowhere

struct Packing {
  const char* name;
  std::vector<int> lengths;  // of a sample's documents; the rest of it is padding
};
const std::vector<Packing>& packings() {
  static const std::vector<Packing> all = {{"apart", {90, 1, 40, 1, 1, 64, 25, 34}},
                                           {"joined", {kSequence}},
                                           {"single tokens", std::vector<int>(kSequence, 1)},
                                           {"padded tail", {64, 70, 3}}};
  return all;
}

// Random tokens in documents of these lengths, each sample turned a little so that no two are alike.
class PackedSource final : public Source {
 public:
  PackedSource(const Packing& packing, int64_t global_batch, int dp, int dp_rank)
      : packing_(packing), dp_(dp), dp_rank_(dp_rank), microbatches_(global_batch / dp) {}

  void load(int64_t first_sample) override {
    targets_ = 0;
    for (size_t m = 0; m < microbatches_.size(); ++m) {
      Microbatch& x = microbatches_[m];
      x = {};
      const int64_t sample = first_sample + static_cast<int64_t>(m) * dp_ + dp_rank_;
      const RandomStream random(7, "packed");
      std::vector<int> lengths = packing_.lengths;
      std::rotate(lengths.begin(), lengths.begin() + sample % static_cast<int64_t>(lengths.size()), lengths.end());
      for (const int length : lengths) {
        const auto begin = static_cast<int32_t>(x.tokens.size()), id = static_cast<int32_t>(x.segments.size());
        x.segments.push_back({begin, begin + length, id, 0});
        for (int i = 0; i < length; ++i) {
          const uint64_t at = static_cast<uint64_t>(sample) * 4096 + x.tokens.size();
          x.tokens.push_back(static_cast<int32_t>(random.below(2 * at, kVocabulary)));
          // Single tokens have targets too: else their steps would have none.
          x.targets.push_back(static_cast<int32_t>(random.below(2 * at + 1, kVocabulary)));
          x.position.push_back(i);
          x.document.push_back(id);
          ++targets_;
        }
      }
      x.tokens.resize(kSequence, 0);
      x.targets.resize(kSequence, -1);
      x.position.resize(kSequence, 0);
      x.document.resize(kSequence, -1);
      x.batch = {x.tokens, x.targets, x.position, x.document, x.segments};
    }
  }
  int microbatches() const override { return static_cast<int>(microbatches_.size()); }
  const Batch& batch(int m) const override { return microbatches_.at(m).batch; }
  int64_t targets() const override { return targets_; }

 private:
  struct Microbatch {
    std::vector<int32_t> tokens, targets, position, document;
    std::vector<Segment> segments;
    Batch batch;
  };
  Packing packing_;
  int dp_, dp_rank_;
  int64_t targets_ = 0;
  std::vector<Microbatch> microbatches_;
};

struct Layout {
  int tp = 1, pp = 1, dp = 1, cp = 1;
  std::string exchange = "gather", schedule = "1f1b", recompute = "none";
  int zero_stage = 0;
  int ranks() const { return tp * pp * dp * cp; }
  std::string name() const {
    return fmt::format("tp {} pp {} dp {} cp {} {} {} recompute {} ZeRO {}", tp, pp, dp, cp, exchange, schedule,
                       recompute, zero_stage);
  }
};

struct Model {
  ModelConfig::Family family = ModelConfig::LLAMA;
  int64_t layers = 2;
  bool windows = false;  // one layer of two looks back 70 tokens
};

RunConfig config_of(const Model& m, const Layout& layout) {
  RunConfig config;
  config.mutable_run()->set_compute_dtype(RunSection::F64);
  ModelConfig& model = *config.mutable_model();
  model.set_family(m.family);
  model.set_hidden_size(16);
  model.set_num_hidden_layers(m.layers);
  model.set_num_attention_heads(8);
  model.set_num_key_value_heads(m.family == ModelConfig::LLAMA ? 2 : 8);
  model.set_head_dim(4);
  model.set_intermediate_size(32);
  model.set_vocab_size(kVocabulary);
  model.set_max_position_embeddings(kSequence);
  model.set_initializer_range(0.1);
  if (m.windows) {
    model.set_sliding_window(70);
    model.add_layer_types("sliding_attention");
    model.add_layer_types("full_attention");
  }
  ParallelConfig& parallel = *config.mutable_parallel();
  parallel.set_tp(layout.tp);
  parallel.set_pp(layout.pp);
  parallel.set_dp(layout.dp);
  parallel.set_cp(layout.cp);
  parallel.set_context_exchange(layout.exchange);
  parallel.set_schedule(layout.schedule);
  parallel.set_recompute(layout.recompute);
  parallel.set_zero_stage(layout.zero_stage);
  config.mutable_data()->set_sequence_length(kSequence);
  config.mutable_data()->set_global_batch_size(4);
  config.mutable_data()->set_micro_batch_size(1);
  resolve(config, {}, {.world_size = layout.ranks(), .data = Surroundings::Data::NotNeeded});
  return config;
}

struct Curve {
  std::vector<double> losses, norms;
  struct Rows {
    Interval rows;
    int64_t row_size = 0;
    std::vector<double> values;
  };
  std::map<std::string, Rows> weights;  // this rank's, after the last step
};

Curve train(const RunConfig& config, const Packing& packing, Comm& world) {
  Assembly parts(config, plan_layout(config), world, 1);
  PackedSource source(packing, config.data().global_batch_size(), parts.mesh().extent(Axis::Dp),
                      parts.mesh().coordinate(Axis::Dp));
  const std::unique_ptr<Pipeline> pipeline = parts.training(source);
  Curve curve;
  for (int64_t step = 1; step <= kSteps; ++step) {
    const StepResult result =
        pipeline->step(parts.context(), (step - 1) * config.data().global_batch_size(), 1e-2, step);
    curve.losses.push_back(result.loss);
    curve.norms.push_back(result.gradient_norm);
  }
  for (const StateSlice& slice : parts.optimizer().state()) {
    if (!slice.name.starts_with("master/")) continue;
    const auto values = slice.data.span<double>();
    curve.weights[slice.name] = {slice.rows, slice.global_shape.row_size(), {values.begin(), values.end()}};
  }
  return curve;
}

Curve train_alone(const Model& model, const Packing& packing) {
  Curve curve;
  tessera::run_ranks(1, [&](Comm& world) { curve = train(config_of(model, {}), packing, world); });
  return curve;
}

void expect_one_curve(const Model& model, const Packing& packing, const Curve& one, const Layout& layout) {
  run_ranks(layout.ranks(), [&](Comm& world) {
    SCOPED_TRACE(fmt::format("{}, {}, {}", ModelConfig::Family_Name(model.family), packing.name, layout.name()));
    const Curve curve = train(config_of(model, layout), packing, world);
    for (int64_t s = 0; s < kSteps; ++s) {
      ASSERT_NEAR(curve.losses[s], one.losses[s], 1e-9);
      ASSERT_NEAR(curve.norms[s], one.norms[s], 1e-9);
    }
    ASSERT_FALSE(curve.weights.empty());
    for (const auto& [name, part] : curve.weights) {
      const std::vector<double>& whole = one.weights.at(name).values;
      for (size_t i = 0; i < part.values.size(); ++i)
        ASSERT_NEAR(part.values[i], whole[part.rows.begin * part.row_size + static_cast<int64_t>(i)], 1e-9) << name;
    }
  });
}

class ContextLayoutsTest : public ::testing::TestWithParam<ModelConfig::Family> {};
INSTANTIATE_TEST_SUITE_P(Families, ContextLayoutsTest, ::testing::Values(ModelConfig::LLAMA, ModelConfig::GPT2),
                         [](const auto& test) { return ModelConfig::Family_Name(test.param); });

TEST_P(ContextLayoutsTest, EveryExchangeAndPackingIsOneCurve) {
  if (under_mpi()) GTEST_SKIP() << "threads suffice for the whole grid";
  const Model model{.family = GetParam()};
  for (const Packing& packing : packings()) {
    const Curve one = train_alone(model, packing);
    for (const int cp : {2, 4}) {
      for (const char* exchange : {"gather", "ring", "ulysses", "ulysses-ring:2"})
        expect_one_curve(model, packing, one, {.cp = cp, .exchange = exchange});
    }
  }
}

TEST_P(ContextLayoutsTest, ProductsAreOneCurve) {
  const Model model{.family = GetParam(), .layers = 4};
  const Packing& packing = packings().front();
  const Curve one = train_alone(model, packing);
  for (const Layout& layout :
       {Layout{.cp = 2}, Layout{.cp = 2, .exchange = "ulysses"}, Layout{.tp = 2, .cp = 2, .exchange = "ring"},
        Layout{.dp = 2, .cp = 2, .recompute = "full"},
        Layout{.cp = 4, .exchange = "ulysses-ring:2", .recompute = "selective"},
        Layout{.pp = 2, .cp = 2, .exchange = "ring", .schedule = "zb-h1"},
        Layout{.pp = 2, .cp = 2, .schedule = "zb-v", .recompute = "selective"},
        Layout{.pp = 2, .cp = 2, .exchange = "ulysses", .schedule = "interleaved", .recompute = "full"},
        Layout{.tp = 2, .pp = 2, .cp = 2, .exchange = "gather", .schedule = "gpipe"},
        Layout{.tp = 2, .pp = 2, .dp = 2, .cp = 2}})
    expect_one_curve(model, packing, one, layout);
}

// States are sharded over dp*cp ranks, of which those of one sample add to the same gradients.
TEST_P(ContextLayoutsTest, ProductsWithShardedStatesAreOneCurve) {
  const Model model{.family = GetParam(), .layers = 4};
  const Packing& packing = packings().front();
  const Curve one = train_alone(model, packing);
  for (const Layout& layout :
       {Layout{.cp = 2, .zero_stage = 1}, Layout{.cp = 2, .exchange = "ring", .zero_stage = 2},
        Layout{.cp = 4, .exchange = "ulysses", .zero_stage = 3}, Layout{.dp = 2, .cp = 2, .zero_stage = 1},
        Layout{.dp = 2, .cp = 2, .recompute = "full", .zero_stage = 3},
        Layout{.tp = 2, .cp = 2, .exchange = "ulysses", .zero_stage = 2},
        Layout{.pp = 2, .cp = 2, .schedule = "zb-h1", .zero_stage = 2},
        Layout{.pp = 2, .cp = 2, .exchange = "ring", .schedule = "zb-v", .recompute = "selective", .zero_stage = 3},
        Layout{.tp = 2, .pp = 2, .dp = 2, .cp = 2, .zero_stage = 1},
        Layout{.tp = 2, .pp = 2, .dp = 2, .cp = 2, .schedule = "interleaved", .zero_stage = 3}})
    expect_one_curve(model, packing, one, layout);
}

TEST_P(ContextLayoutsTest, WindowsAndExchangesByLayerAreOneCurve) {
  const Model model{.family = GetParam(), .layers = 4, .windows = true};
  const Packing& packing = packings().front();
  const Curve one = train_alone(model, packing);
  for (const Layout& layout :
       {Layout{.cp = 2}, Layout{.cp = 4, .exchange = "ring"}, Layout{.cp = 4, .exchange = "ring:0,ulysses:2-3"},
        Layout{.pp = 2, .cp = 2, .exchange = "ulysses:0,ring:3", .schedule = "zb-v", .recompute = "full:0-1"}})
    expect_one_curve(model, packing, one, layout);
}

}  // namespace
}  // namespace tessera::testing
