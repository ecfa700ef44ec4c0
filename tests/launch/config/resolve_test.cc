#include "launch/config/resolve.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "launch/config/override.h"
#include "launch/config/text.h"
#include "launch/run.pb.h"
#include "tensor/check.h"

namespace tessera {
namespace {

using Overrides = std::vector<std::string>;

// A config that resolves, changed by overrides.
struct Made {
  RunConfig config;
  Origins origins;
  Surroundings surroundings{.world_size = 1, .tokenizer_vocab_size = 257};

  explicit Made(const Overrides& overrides) {
    config.mutable_data()->add_train()->set_path("shards/web/");
    Problems problems;
    for (const std::string& text : overrides) apply_override(text, config, origins, problems);
    problems.throw_if_any();
  }
};

RunConfig resolved(const Overrides& overrides, int world_size = 1) {
  Made made(overrides);
  made.surroundings.world_size = world_size;
  resolve(made.config, made.origins, made.surroundings);
  return made.config;
}

// Resolving must fail with exactly this one message.
void expect_problem(const Overrides& overrides, const std::string& message, int world_size = 1) {
  try {
    resolved(overrides, world_size);
    ADD_FAILURE() << "no error: " << message;
  } catch (const UsageError& error) {
    EXPECT_EQ(error.what(), message);
    EXPECT_EQ(error.code(), ExitCode::Usage);
  }
}

TEST(Resolve, SetsEveryDefaultOfALlama) {
  const RunConfig c = resolved({"data.sequence_length=128"}, 2);
  EXPECT_EQ(c.run().dir(), "runs/run");
  EXPECT_EQ(c.run().device(), RunSection::CPU);
  EXPECT_EQ(c.run().steps(), 100);
  EXPECT_TRUE(c.run().has_steps());
  EXPECT_EQ(c.model().num_key_value_heads(), 4);
  EXPECT_EQ(c.model().head_dim(), 64);
  EXPECT_EQ(c.model().intermediate_size(), 704);  // 8/3 * 256 = 682.7, up to a multiple of 64
  EXPECT_EQ(c.model().vocab_size(), 257);
  EXPECT_EQ(c.model().max_position_embeddings(), 128);
  EXPECT_FALSE(c.model().tie_word_embeddings());
  EXPECT_TRUE(c.model().has_tie_word_embeddings());
  EXPECT_EQ(c.parallel().dp(), 2);
  EXPECT_EQ(c.data().train(0).name(), "web");
  EXPECT_EQ(c.data().train(0).weight(), 1);
  EXPECT_TRUE(c.data().train(0).has_weight());
  EXPECT_EQ(c.lr_schedule().decay_end_step(), 100);
  EXPECT_FALSE(c.lr_schedule().has_decay_steps());
  EXPECT_TRUE(c.has_watchdog());
}

TEST(Resolve, SetsTheDefaultsOfAGpt2) {
  const RunConfig c = resolved({"model.family=GPT2", "model.hidden_size=96"});
  EXPECT_EQ(c.model().intermediate_size(), 384);
  EXPECT_EQ(c.model().max_position_embeddings(), 1024);
  EXPECT_TRUE(c.model().tie_word_embeddings());
}

TEST(Resolve, KeepsWhatIsSet) {
  const RunConfig c =
      resolved({"run.dir=here", "model.head_dim=10", "model.num_attention_heads=6", "model.num_key_value_heads=2",
                "model.intermediate_size=99", "model.vocab_size=300", "data.train={path: \"a/b.h5\" name: \"books\"}",
                "model.tie_word_embeddings=true", "lr_schedule.decay_end_step=50"});
  EXPECT_EQ(c.run().dir(), "here");
  EXPECT_EQ(c.model().head_dim(), 10);  // 6 * 10 is not the hidden size, and need not be
  EXPECT_EQ(c.model().num_key_value_heads(), 2);
  EXPECT_EQ(c.model().intermediate_size(), 99);
  EXPECT_EQ(c.model().vocab_size(), 300);
  EXPECT_EQ(c.data().train(0).name(), "books");
  EXPECT_TRUE(c.model().tie_word_embeddings());
  EXPECT_EQ(c.lr_schedule().decay_end_step(), 50);
}

TEST(Resolve, ASecondTimeChangesNothing) {
  for (const char* kind : {"CONSTANT", "LINEAR", "WSD"}) {
    RunConfig c = resolved({std::string("lr_schedule.kind=") + kind}, 4);
    const std::string once = to_text(c);
    resolve(c, {}, {.world_size = 4, .tokenizer_vocab_size = 257});
    EXPECT_EQ(to_text(c), once);
  }
}

TEST(Resolve, EndsTheDecayWithTheRunOrTheWarmUp) {
  EXPECT_EQ(resolved({"run.steps=37"}).lr_schedule().decay_end_step(), 37);
  EXPECT_EQ(resolved({"run.steps=5", "lr_schedule.warmup_steps=20"}).lr_schedule().decay_end_step(), 20);
  EXPECT_FALSE(resolved({"lr_schedule.kind=CONSTANT"}).lr_schedule().has_decay_end_step());
  EXPECT_EQ(resolved({"lr_schedule.kind=WSD", "run.steps=95"}).lr_schedule().decay_steps(), 10);
  EXPECT_EQ(
      resolved({"lr_schedule.kind=WSD", "run.steps=95", "lr_schedule.warmup_steps=90"}).lr_schedule().decay_steps(), 5);
}

TEST(Resolve, TakesTheGpuThatIsThere) {
  Made made({});
  made.surroundings.cuda = Surroundings::Cuda::Present;
  resolve(made.config, made.origins, made.surroundings);
  EXPECT_EQ(made.config.run().device(), RunSection::CUDA);
}

TEST(Resolve, NumbersOutOfRangeNamePathValueAndRule) {
  expect_problem({"model.hidden_size=0"}, "--set model.hidden_size=0: model.hidden_size = 0: must be at least 1");
  expect_problem({"model.num_attention_heads=-2"},
                 "--set model.num_attention_heads=-2: model.num_attention_heads = -2: must be at least 1");
  expect_problem({"model.rope_theta=0"}, "--set model.rope_theta=0: model.rope_theta = 0: must be above 0");
  expect_problem({"model.rms_norm_eps=nan"}, "--set model.rms_norm_eps=nan: model.rms_norm_eps = nan: must be finite");
  expect_problem({"watchdog.timeout_seconds=inf"},
                 "--set watchdog.timeout_seconds=inf: watchdog.timeout_seconds = inf: must be finite");
  expect_problem({"data.train[0].weight=0"}, "--set data.train[0].weight=0: data.train[0].weight = 0: must be above 0");
  expect_problem({"checkpoint.keep_last=1"},
                 "--set checkpoint.keep_last=1: checkpoint.keep_last = 1: must be at least 2");
  expect_problem({"optimizer.beta1=1"}, "--set optimizer.beta1=1: optimizer.beta1 = 1: must be at least 0 and below 1");
  expect_problem({"lr_schedule.learning_rate=nan"},
                 "--set lr_schedule.learning_rate=nan: lr_schedule.learning_rate = nan: must be finite and above 0");
  expect_problem({"run.name=a/b"},
                 "--set run.name=a/b: run.name = \"a/b\": must be a name for a directory, not empty and without /");
}

TEST(Resolve, AllProblemsAreListed) {
  try {
    resolved(
        {"model.hidden_size=0", "optimizer.epsilon=0", "parallel.context_slack=-1", "lr_schedule.warmup_steps=-1"});
    FAIL();
  } catch (const UsageError& error) {
    const std::string text = error.what();
    EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2) << text;  // the schedule is looked at when sizes are right
    for (const char* path : {"model.hidden_size = 0", "optimizer.epsilon = 0", "parallel.context_slack = -1"})
      EXPECT_NE(text.find(path), std::string::npos) << text;
  }
}

TEST(Resolve, ModelSizesMustFitEachOther) {
  expect_problem(
      {"model.hidden_size=100", "model.num_attention_heads=3"},
      "--set model.num_attention_heads=3: model.hidden_size = 100: must be a multiple of "
      "model.num_attention_heads = 3, as model.head_dim is not set; choose 99 or 102, or set model.head_dim\n"
      "--set model.num_attention_heads=3: model.head_dim = 33: must be even, as RoPE turns pairs; choose 32 "
      "or 34");
  expect_problem({"model.num_attention_heads=8", "model.num_key_value_heads=3"},
                 "--set model.num_attention_heads=8: model.num_attention_heads = 8: must be a multiple of "
                 "model.num_key_value_heads = 3; choose key-value heads from 1, 2, 4, 8");
  expect_problem({"model.head_dim=5"},
                 "--set model.head_dim=5: model.head_dim = 5: must be even, as RoPE turns pairs; choose 4 or 6");
  EXPECT_EQ(resolved({"model.family=GPT2", "model.head_dim=5"}).model().head_dim(), 5);
  expect_problem({"model.family=GPT2", "model.max_position_embeddings=1000"},
                 "--set model.max_position_embeddings=1000: model.max_position_embeddings = 1000: must be at least "
                 "data.sequence_length = 1024, as every position has an embedding of its own");
  expect_problem({"model.vocab_size=256", "data.tokenizer=t.json"},
                 "--set model.vocab_size=256: model.vocab_size = 256: must be at least 257, the vocabulary of t.json");
}

TEST(Resolve, TheLayoutMustFitModelAndRanks) {
  expect_problem({"parallel.tp=8", "model.intermediate_size=704"},
                 "--set parallel.tp=8: model.num_key_value_heads = 4: must be a multiple of parallel.tp = 8; choose tp "
                 "from 1, 2, 4",
                 8);
  expect_problem(
      {"parallel.tp=2", "model.intermediate_size=99"},
      "--set model.intermediate_size=99: model.intermediate_size = 99: must be a multiple of parallel.tp = 2; "
      "choose 98 or 100",
      2);
  expect_problem(
      {"parallel.tp=2", "data.sequence_length=15"},
      "--set data.sequence_length=15: data.micro_batch_size * data.sequence_length = 1 * 15 = 15 tokens: must "
      "be a multiple of parallel.tp = 2, as each rank holds an equal part; choose tp from 1, 3, 5, 15",
      2);
  expect_problem({"data.global_batch_size=8", "data.micro_batch_size=3"},
                 "--set data.global_batch_size=8: data.global_batch_size = 8: must be a multiple of parallel.dp * "
                 "data.micro_batch_size = 2 * 3 = 6; choose 6 or 12",
                 2);
  for (const Overrides& layout : {Overrides{"parallel.tp=2"}, Overrides{"parallel.dp=4"}}) {
    Made made(layout);
    made.surroundings.world_size = 3;
    EXPECT_THROW(resolve(made.config, made.origins, made.surroundings), UsageError);
  }
}

TEST(Resolve, ContextParallelRanksNeedTiles) {
  EXPECT_EQ(resolved({"parallel.cp=4"}, 4).parallel().cp(), 4);
  EXPECT_EQ(resolved({"parallel.cp=2"}, 2).parallel().context_slack(), 0.02);
  expect_problem({"parallel.cp=32"},
                 "--set parallel.cp=32: parallel.cp = 32: a microbatch of 1024 tokens has 16 attention tiles of 64 "
                 "tokens, fewer than ranks; choose cp of at most 16, or data.micro_batch_size * data.sequence_length "
                 "of at least 2048",
                 32);
  expect_problem({"parallel.context_slack=-0.1"},
                 "--set parallel.context_slack=-0.1: parallel.context_slack = -0.1: must be at least 0");
  expect_problem({"parallel.cp=2", "model.sliding_window=63"},
                 "--set model.sliding_window=63: model.sliding_window = 63: with parallel.cp = 2 a window must be at "
                 "least 64 tokens, an attention tile; choose 64 or more, 0 for none, or cp = 1",
                 2);
  EXPECT_EQ(resolved({"model.sliding_window=63"}).model().sliding_window(), 63);
  EXPECT_EQ(resolved({"parallel.cp=2", "model.sliding_window=64"}, 2).model().sliding_window(), 64);
}

TEST(Resolve, WindowsByLayerAreSaidOnce) {
  const auto windowed = resolved(
      {"model.sliding_window=256", "model.layer_types=sliding_attention", "model.layer_types+=full_attention"});
  EXPECT_EQ(windowed.model().layer_types_size(), 2);
  EXPECT_EQ(resolved({"model.sliding_window=256", "model.layer_types=[\"full_attention\", \"sliding_attention\"]",
                      "model.layer_types="})
                .model()
                .layer_types_size(),
            0);
  expect_problem({"model.layer_types=[\"full_attention\", \"sliding\"]"},
                 "--set model.layer_types=[\"full_attention\", \"sliding\"]: model.layer_types = sliding: unknown; "
                 "choose sliding_attention or full_attention");
  expect_problem({"model.layer_types=sliding_attention"},
                 "--set model.layer_types=sliding_attention: model.layer_types = sliding_attention: needs "
                 "model.sliding_window, which is 0");
  expect_problem({"model.sliding_window=256", "model.max_window_layers=5"},
                 "--set model.max_window_layers=5: model.max_window_layers = 5: must be at most "
                 "model.num_hidden_layers = 4");
  expect_problem({"model.max_window_layers=2"},
                 "--set model.max_window_layers=2: model.max_window_layers = 2: needs model.sliding_window, which is "
                 "0");
  expect_problem({"model.sliding_window=256", "model.max_window_layers=2", "model.layer_types=full_attention"},
                 "--set model.layer_types=full_attention: model.layer_types and model.max_window_layers both say "
                 "which layers have a window; set one");
}

TEST(Resolve, APipelineMustHaveBlocksForItsStages) {
  EXPECT_EQ(resolved({"parallel.pp=4"}, 4).parallel().pp(), 4);
  expect_problem(
      {"parallel.pp=6"},
      "--set parallel.pp=6: parallel.pp = 6 with schedule 1f1b has 6 stages, but model.num_hidden_layers = 4: "
      "each stage needs a block; choose pp up to 4",
      6);
  expect_problem({"parallel.pp=4", "parallel.schedule=interleaved"},
                 "--set parallel.pp=4: parallel.pp = 4 with schedule interleaved has 8 stages, but "
                 "model.num_hidden_layers = 4: each stage needs a block; choose pp up to 2",
                 4);
  expect_problem(
      {"parallel.pp=2", "parallel.blocks_per_stage=1,2"},
      "--set parallel.blocks_per_stage=1,2: pipeline stages of 1, 2 blocks are 3 in all, but the model has 4", 2);
  expect_problem(
      {"parallel.pp=2", "parallel.blocks_per_stage=4"},
      "--set parallel.blocks_per_stage=4: parallel.blocks_per_stage = 4: names 1 stages, but parallel.pp = 2 "
      "with schedule 1f1b has 2",
      2);
  expect_problem({"parallel.blocks_per_stage=4;"},
                 "--set parallel.blocks_per_stage=4;: parallel.blocks_per_stage = 4;: must be numbers with commas "
                 "between, one a stage, e.g. 3,4,4,1");
  expect_problem({"parallel.recompute=ful"},
                 "--set parallel.recompute=ful: parallel.recompute = ful: 'ful' is no mode with blocks; choose none, "
                 "selective or full, or a plan like full:0-3,selective:4-7 over blocks 0 to 3");
}

TEST(Resolve, WhatThisVersionLacksIsSaid) {
  expect_problem({"parallel.zero_group=1"},
                 "--set parallel.zero_group=1: parallel.zero_group = 1: shares out nothing at parallel.zero_stage = 0; "
                 "set it to 0, or choose a stage from 1 to 3");
  expect_problem(
      {"parallel.zero_stage=1", "parallel.zero_group=3"},
      "--set parallel.zero_group=3: parallel.zero_group = 3: must divide parallel.dp = 1, as each group holds "
      "whole states; choose from 1, or 0 for one group of all");
  expect_problem(
      {"parallel.gradient_wire=bf16"},
      "--set parallel.gradient_wire=bf16: parallel.gradient_wire = bf16: needs parallel.zero_stage 1, 2 or 3, "
      "as an owner adds the parts up");
  expect_problem(
      {"parallel.zero_stage=1", "parallel.gradient_wire=bf16", "run.compute_dtype=F64"},
      "--set parallel.gradient_wire=bf16: parallel.gradient_wire = bf16: sums in F32, but run.compute_dtype = "
      "F64 promises F64 throughout; choose full, or compute in F32 or BF16");
  expect_problem({"parallel.zero_stage=1", "parallel.gradient_wire=bf61"},
                 "--set parallel.gradient_wire=bf61: parallel.gradient_wire = bf61: unknown; did you mean \"bf16\"?");
  expect_problem({"parallel.zero_stage=4"},
                 "--set parallel.zero_stage=4: parallel.zero_stage = 4: there are stages 0 to 3");
  expect_problem({"parallel.schedule=1f1"},
                 "--set parallel.schedule=1f1: parallel.schedule = 1f1: unknown; did you mean \"1f1b\"?");
  EXPECT_EQ(resolved({"parallel.schedule=gpipe"}).parallel().schedule(), "gpipe");
  expect_problem({"run.compute_dtype=FP8"},
                 "--set run.compute_dtype=FP8: run.compute_dtype = FP8: needs a GPU with FP8 "
                 "matrix units; choose F64, F32 or BF16");
  expect_problem({"run.device=CUDA"},
                 "--set run.device=CUDA: run.device = CUDA: this build has no CUDA; choose CPU or "
                 "AUTO, or build with TESSERA_CUDA=ON");
  Made made({"run.device=CUDA"});
  made.surroundings.cuda = Surroundings::Cuda::NoGpu;
  EXPECT_THROW(resolve(made.config, made.origins, made.surroundings), UsageError);
}

// What a config with FP8 is told where there is a GPU; "" when it resolves.
std::string told_in_fp8(Overrides overrides, int world_size = 1) {
  overrides.push_back("run.compute_dtype=FP8");
  Made made(overrides);
  made.surroundings.world_size = world_size;
  made.surroundings.cuda = Surroundings::Cuda::Present;
  try {
    resolve(made.config, made.origins, made.surroundings);
  } catch (const UsageError& error) {
    return error.what();
  }
  EXPECT_EQ(made.config.run().device(), RunSection::CUDA);
  return "";
}

TEST(Resolve, Fp8IsForAGpuAndSizesInTiles) {
  EXPECT_EQ(told_in_fp8({}), "");
  EXPECT_EQ(told_in_fp8({"parallel.tp=2"}, 2), "");
  const auto expect_told = [](const Overrides& overrides, const std::string& message, int world_size = 1) {
    const std::string told = told_in_fp8(overrides, world_size);
    EXPECT_NE(told.find(message), std::string::npos) << told << "\nlacks\n" << message;
  };
  expect_told({"run.device=CPU"}, "run.compute_dtype = FP8: needs a GPU with FP8 matrix units");
  expect_told({"model.num_hidden_layers=2"},
              "run.compute_dtype = FP8: the first and the last block stay in BF16, and model.num_hidden_layers = 2 "
              "leaves none between them; choose BF16, or 3 layers or more");
  expect_told({"model.hidden_size=264", "model.head_dim=64"},
              "model.hidden_size = 264: must be a multiple of 16, as run.compute_dtype = FP8 multiplies in such tiles; "
              "choose sizes that make it 256 or 272, or BF16");
  expect_told({"parallel.tp=2", "model.intermediate_size=688"},
              "model.intermediate_size / parallel.tp = 344: must be a multiple of 16", 2);
  expect_told({"model.head_dim=10"},
              "model.num_attention_heads * model.head_dim / parallel.tp = 40: must be a multiple of 16");
  expect_told(
      {"model.num_attention_heads=4", "model.num_key_value_heads=1", "model.head_dim=4"},
      "(model.num_attention_heads + 2 * model.num_key_value_heads) * model.head_dim / parallel.tp = 24: must be "
      "a multiple of 16");
  expect_told({"data.sequence_length=1000", "data.micro_batch_size=1"},
              "data.micro_batch_size * data.sequence_length = 1000: must be a multiple of 16");
}

TEST(Resolve, DataAreNeededOnlyWhereTheyAreRead) {
  expect_problem({"data.train="},
                 "--set data.train=: data.train is empty: name a token shard, e.g. --set "
                 "data.train=PATH (`tessera data build` makes one)");
  Made made({"data.train=", "model.vocab_size=1000"});
  made.surroundings = {.data = Surroundings::Data::NotNeeded};
  resolve(made.config, made.origins, made.surroundings);
  EXPECT_EQ(made.config.model().vocab_size(), 1000);
}

TEST(Resolve, AVocabularyMustComeFromSomewhere) {
  Made made({});
  made.surroundings.tokenizer_vocab_size = 0;
  try {
    resolve(made.config, made.origins, made.surroundings);
    FAIL();
  } catch (const UsageError& error) {
    EXPECT_STREQ(error.what(),
                 "model.vocab_size is not set, and neither data.tokenizer nor data.train is there to take it from; set "
                 "one of them");
  }
}

TEST(Resolve, SourcesHavePathsAndNamesOfTheirOwn) {
  expect_problem({"data.train+={weight: 2}"},
                 "--set data.train+={weight: 2}: data.train[1].path is not set: name a "
                 "token shard or a directory of them");
  expect_problem({"data.train+=other/web"},
                 "--set data.train+=other/web: data.train[1].name = web: must differ from "
                 "data.train[0].name; set one of them");
  EXPECT_EQ(resolved({"data.validation=other/web"}).data().validation(0).name(), "web");
}

}  // namespace
}  // namespace tessera
