// A step dealt to context-parallel ranks has the targets, the visible pairs and the loss of the whole step, whatever
// else the layout cuts, with layers of several windows; nothing of it depends on which documents were split.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <mutex>

#include "data/order/synthetic_source.h"
#include "launch/config/run_layout.h"
#include "launch/proof/layout_proof.h"
#include "launch/run.pb.h"
#include "launch/run/assembly.h"
#include "parallel/comm/comm_threads.h"
#include "parallel/pipeline.h"
#include "tests/launch/proof/planned_run.h"
#include "tests/support/ranks.h"

namespace tessera::testing {
namespace {

constexpr int64_t kSequence = 320, kMicroBatch = 1, kGlobalBatch = 8;

struct Layout {
  int cp = 1, tp = 1, pp = 1, dp = 1;
  int ranks() const { return cp * tp * pp * dp; }
};
std::string name(const Layout& l) { return fmt::format("cp {} tp {} pp {} dp {}", l.cp, l.tp, l.pp, l.dp); }

RunConfig config_of(const Layout& layout, ModelConfig::Family family) {
  RunConfig config;
  config.mutable_run()->set_compute_dtype(RunSection::F64);
  ModelConfig& model = *config.mutable_model();
  model.set_family(family);
  model.set_hidden_size(16);
  model.set_num_hidden_layers(3);
  model.set_num_attention_heads(4);
  model.set_num_key_value_heads(family == ModelConfig::LLAMA ? 2 : 4);
  model.set_head_dim(4);
  model.set_intermediate_size(32);
  model.set_vocab_size(61);
  model.set_max_position_embeddings(kSequence);
  model.set_tie_word_embeddings(family == ModelConfig::GPT2);
  model.set_initializer_range(0.2);
  model.set_sliding_window(64);
  model.set_max_window_layers(1);  // the first layer sees all, the others a window
  ParallelConfig& parallel = *config.mutable_parallel();
  parallel.set_cp(layout.cp);
  parallel.set_tp(layout.tp);
  parallel.set_pp(layout.pp);
  parallel.set_dp(layout.dp);
  config.mutable_data()->set_sequence_length(kSequence);
  config.mutable_data()->set_micro_batch_size(kMicroBatch);
  config.mutable_data()->set_global_batch_size(kGlobalBatch);
  config.mutable_lr_schedule()->set_learning_rate(1e-2);
  config.mutable_lr_schedule()->set_kind(LrScheduleConfig::CONSTANT);
  return config;
}

struct Counted {
  int64_t targets = 0, pairs = 0, split = 0;
  double loss = 0;
};

Counted counted(const Layout& layout, ModelConfig::Family family) {
  Counted counted;
  run_ranks(layout.ranks(), [&](Comm& world) {
    const RunConfig config = config_of(layout, family);
    Assembly parts(config, plan_layout(config), world, 1);
    SyntheticSource whole({.vocab = config.model().vocab_size(),
                           .sequence_length = kSequence,
                           .micro_batch_size = kMicroBatch,
                           .global_batch_size = kGlobalBatch,
                           .mean_document = 200,
                           .dp = layout.dp,
                           .dp_rank = parts.mesh().coordinate(Axis::Dp)});
    const std::unique_ptr<Pipeline> evaluation = parts.evaluation(whole), training = parts.training(whole);
    const EvaluationResult evaluated = evaluation->evaluate(parts.context(), 0, 2, kGlobalBatch);
    const StepResult result = training->step(parts.context(), 0, 1e-2, 1);
    const int64_t pairs = parts.visible_pairs(*training);
    if (world.rank() != 0) return;
    counted = {.targets = result.targets + evaluated.targets, .pairs = pairs, .loss = evaluated.loss};
    for (int m = 0; m < training->source().microbatches(); ++m) {
      const ContextPlan* plan = training->source().batch(m).context;
      if (plan != nullptr) counted.split += plan->split_documents();
    }
  });
  return counted;
}

TEST(Dealing, CountsAndLossesAreThoseOfTheWholeStep) {
  const Counted one = counted({}, ModelConfig::LLAMA);
  EXPECT_GT(one.targets, 0);
  for (const Layout& layout : {Layout{.cp = 2},
                               {.cp = 4},
                               {.cp = 3},
                               {.cp = 2, .tp = 2},
                               {.cp = 2, .pp = 2},
                               {.cp = 2, .dp = 2},
                               {.cp = 2, .tp = 2, .pp = 2}}) {
    SCOPED_TRACE(name(layout));
    const Counted cut = counted(layout, ModelConfig::LLAMA);
    EXPECT_EQ(cut.targets, one.targets);
    EXPECT_EQ(cut.pairs, one.pairs);
    EXPECT_NEAR(cut.loss, one.loss, 1e-12 * one.loss);
    EXPECT_GT(cut.split, 0);
  }
}

TEST(Dealing, TrainingIsThatOfOneRank) {
  for (const auto family : {ModelConfig::LLAMA, ModelConfig::GPT2}) {
    const RunRecord one = record_planned(config_of({}, family), 2);
    for (const Layout& layout : {Layout{.cp = 2}, {.cp = 4}, {.cp = 2, .tp = 2}, {.cp = 2, .pp = 2, .dp = 2}}) {
      const LayoutDifference difference = compare_runs(one, record_planned(config_of(layout, family), 2));
      EXPECT_TRUE(difference.equal()) << ModelConfig::Family_Name(family) << " " << name(layout) << ": loss "
                                      << difference.loss << " gradient " << difference.gradient << " of "
                                      << difference.first_gradient << " state " << difference.state;
    }
  }
}

}  // namespace
}  // namespace tessera::testing
