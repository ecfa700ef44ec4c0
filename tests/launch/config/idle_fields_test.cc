#include "launch/config/idle_fields.h"

#include <gtest/gtest.h>

#include "launch/config/override.h"
#include "launch/config/resolve.h"
#include "launch/run.pb.h"

namespace tessera {
namespace {

std::vector<std::string> idle(const std::vector<std::string>& overrides) {
  RunConfig given;
  Origins origins;
  Problems problems;
  for (const std::string& text : overrides) apply_override(text, given, origins, problems);
  problems.throw_if_any();
  RunConfig resolved = given;
  resolve(resolved, origins, {.world_size = 1, .tokenizer_vocab_size = 257, .data = Surroundings::Data::NotNeeded});
  return idle_fields(given, resolved);
}

TEST(IdleFields, AreNamedWithTheReason) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"run.cuda_graphs=AUTO", "run.device = CPU"},
      {"parallel.context_slack=0.5", "parallel.cp = 1"},
      {"parallel.times.forward=2", "parallel.schedule"},
      {"model.layer_norm_epsilon=1e-6", "model.family = LLAMA"},
      {"model.mup_output_multiplier=2", "MUP"},
      {"lr_schedule.decay=SQRT_DECAY", "WSD"},
      {"lr_schedule.decay_steps=3", "WSD"},
      {"evaluation.every_steps=5", "data.validation is empty"},
  };
  for (const auto& [field, reason] : cases) {
    const std::vector<std::string> lines = idle({field});
    ASSERT_EQ(lines.size(), 1u) << field;
    const std::string path = field.substr(0, field.find('='));
    EXPECT_TRUE(lines[0].starts_with(path + " = ")) << lines[0];
    EXPECT_NE(lines[0].find("does nothing: "), std::string::npos) << lines[0];
    EXPECT_NE(lines[0].find(reason), std::string::npos) << lines[0];
  }
  EXPECT_EQ(idle({"model.family=GPT2", "model.rope_theta=5", "model.rms_norm_eps=1e-6"}).size(), 2u);
  EXPECT_EQ(idle({"lr_schedule.kind=CONSTANT", "lr_schedule.min_learning_rate=1e-5"}).size(), 1u);
}

TEST(IdleFields, WhatIsReadOrHasItsDefaultIsNoWorthAWord) {
  EXPECT_TRUE(idle({}).empty());
  EXPECT_TRUE(idle({"parallel.context_slack=0.02", "evaluation.samples=64"}).empty());
  EXPECT_TRUE(idle({"lr_schedule.kind=WSD", "lr_schedule.decay=SQRT_DECAY", "model.rope_theta=500000"}).empty());
  EXPECT_TRUE(idle({"parallel.schedule=zb-v", "parallel.times.forward=2"}).empty());
}

}  // namespace
}  // namespace tessera
