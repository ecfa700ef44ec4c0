// Every schedule, recomputation, cut into stages and tie against one rank, in F64, with ranks as threads; and the faults
// that the proof must find.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "launch/config/override.h"
#include "launch/config/resolve.h"
#include "launch/layout_proof.h"
#include "launch/run.pb.h"
#include "tests/support/ranks.h"

namespace tessera::testing {
namespace {

constexpr int64_t kSteps = 3;

RunConfig config_of(ModelConfig::Family family, bool tied, const std::vector<std::string>& fields) {
  RunConfig config;
  config.mutable_run()->set_compute_dtype(RunSection::F64);
  ModelConfig& model = *config.mutable_model();
  model.set_family(family);
  model.set_hidden_size(16);
  model.set_num_hidden_layers(9);
  model.set_num_attention_heads(4);
  model.set_num_key_value_heads(family == ModelConfig::LLAMA ? 2 : 4);
  model.set_vocab_size(37);
  model.set_intermediate_size(32);
  model.set_tie_word_embeddings(tied);
  model.set_initializer_range(0.1);
  config.mutable_data()->set_sequence_length(16);
  config.mutable_data()->set_global_batch_size(8);
  config.mutable_lr_schedule()->set_learning_rate(1e-2);
  config.mutable_lr_schedule()->set_kind(LrScheduleConfig::CONSTANT);
  Origins origins;
  Problems problems;
  for (const std::string& field : fields) apply_override("parallel." + field, config, origins, problems);
  problems.throw_if_any();
  const ParallelConfig& parallel = config.parallel();
  const int ranks = parallel.tp() * parallel.pp() * std::max(1, parallel.dp());
  resolve(config, origins, {.world_size = ranks, .data = Surroundings::Data::NotNeeded});
  return config;
}

struct Case {
  const char* name;
  std::vector<std::string> fields;
};

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {"gpipe pp2", {"pp=2", "schedule=gpipe"}},
      {"1f1b pp4", {"pp=4"}},
      {"1f1b pp8", {"pp=8"}},
      {"1f1b pp3 with fewer microbatches than stages", {"pp=3", "dp=4"}},
      {"1f1b tp2 pp2", {"tp=2", "pp=2"}},
      {"1f1b pp4 dp2", {"pp=4", "dp=2"}},
      {"1f1b tp2 pp2 dp2", {"tp=2", "pp=2", "dp=2"}},
      {"interleaved pp2", {"pp=2", "schedule=interleaved"}},
      {"interleaved pp2, three chunks", {"pp=2", "schedule=interleaved", "chunks=3"}},
      {"interleaved pp4 dp2 in groups", {"pp=4", "dp=2", "schedule=interleaved", "microbatch_group=2"}},
      {"uneven stages", {"pp=3", "blocks_per_stage=5,1,3"}},
      {"recompute full, one stage", {"pp=1", "recompute=full"}},
      {"recompute selective pp2", {"pp=2", "recompute=selective"}},
      {"recompute full pp2 tp2", {"pp=2", "tp=2", "recompute=full"}},
      {"recompute by blocks, interleaved", {"pp=2", "schedule=interleaved", "recompute=full:0-3,selective:6-8"}},
  };
  return all;
}

class PipelinesTest : public ::testing::TestWithParam<std::tuple<ModelConfig::Family, bool>> {
 protected:
  void SetUp() override {
    if (under_mpi()) GTEST_SKIP() << "ranks are threads here";
  }
  RunConfig make(const std::vector<std::string>& fields) const {
    return config_of(std::get<0>(GetParam()), std::get<1>(GetParam()), fields);
  }
};

TEST_P(PipelinesTest, AllComputeWhatOneRankComputes) {
  const RunRecord one = record_run(make({}), kSteps);
  EXPECT_NE(one.losses.front(), one.losses.back());
  for (const Case& c : cases()) {
    const LayoutDifference difference = compare_runs(one, record_run(make(c.fields), kSteps));
    EXPECT_TRUE(difference.equal()) << c.name << ": loss " << difference.loss << " norm " << difference.norm
                                    << " gradient " << difference.gradient << " " << difference.first_gradient
                                    << " state " << difference.state << " " << difference.first_state;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, PipelinesTest,
                         ::testing::Combine(::testing::Values(ModelConfig::LLAMA, ModelConfig::GPT2),
                                            ::testing::Values(false, true)),
                         [](const auto& test) {
                           return ModelConfig::Family_Name(std::get<0>(test.param)) +
                                  (std::get<1>(test.param) ? "_tied" : "_untied");
                         });

}  // namespace
}  // namespace tessera::testing
