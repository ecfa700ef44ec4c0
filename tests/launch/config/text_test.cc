#include "launch/config/text.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "launch/config/read.h"
#include "launch/config/resolve.h"
#include "launch/run.pb.h"
#include "tensor/check.h"

namespace tessera {
namespace {

RunConfig some_config() {
  RunConfig config;
  config.mutable_run()->set_name("été \"x\"");
  config.mutable_optimizer()->set_beta2(0.1);
  config.mutable_lr_schedule()->set_learning_rate(1.0 / 3);
  config.mutable_data()->add_train()->set_path("a");
  resolve(config, {}, {.tokenizer_vocab_size = 257});
  return config;
}

TEST(ConfigText, GoesRoundExactly) {
  const RunConfig config = some_config();
  const std::string file = ::testing::TempDir() + "/saved.textproto";
  std::ofstream(file) << to_text(config);
  RunConfig read;
  read_saved_config(file, read);
  EXPECT_EQ(to_text(read), to_text(config));
  EXPECT_EQ(read.SerializeAsString(), config.SerializeAsString());
  EXPECT_EQ(config_hash(read), config_hash(config));
}

TEST(ConfigText, HashTellsConfigsApart) {
  const RunConfig config = some_config();
  RunConfig other = config;
  other.mutable_lr_schedule()->set_learning_rate(std::nextafter(1.0 / 3, 1));
  EXPECT_EQ(config_hash(config).size(), 32u);
  EXPECT_NE(config_hash(other), config_hash(config));
}

TEST(ReadConfig, ListsTheMistakesOfFileAndOverridesTogether) {
  const std::string file = ::testing::TempDir() + "/wrong.textproto";
  std::ofstream(file) << "model {\n  hiden_size: 1\n}\n";
  const std::vector<std::string> overrides = {"run.stepps=3", "run.steps=4"};
  RunConfig config;
  Origins origins;
  try {
    read_config(file, overrides, config, origins);
    FAIL();
  } catch (const UsageError& error) {
    EXPECT_EQ(error.what(), file + ":2:3: unknown field \"hiden_size\"; did you mean \"hidden_size\"?\n" +
                                "--set run.stepps=3: run.stepps: \"run\" has no field \"stepps\"; did you mean "
                                "\"steps\"?");
  }
}

TEST(ReadConfig, OverridesStandAboveTheFileAndMoveTheOrigin) {
  const std::string file = ::testing::TempDir() + "/good.textproto";
  std::ofstream(file) << "run { steps: 1 seed: 9 }\n";
  const std::vector<std::string> overrides = {"run.steps=4"};
  RunConfig config;
  Origins origins;
  read_config(file, overrides, config, origins);
  EXPECT_EQ(config.run().steps(), 4);
  EXPECT_EQ(config.run().seed(), 9u);
  EXPECT_EQ(origins.of("run.steps"), "--set run.steps=4");
  EXPECT_EQ(origins.of("run.seed"), file + ":1:16");
}

TEST(ReadConfig, AMissingFileIsAUsageError) {
  RunConfig config;
  Origins origins;
  EXPECT_THROW(read_config(::testing::TempDir() + "/absent.textproto", {}, config, origins), UsageError);
  EXPECT_THROW(read_config(::testing::TempDir(), {}, config, origins), UsageError);
}

TEST(ChangedSections, ListsFieldsOfTheFixedSectionsOnly) {
  const RunConfig saved = some_config();
  RunConfig now = saved;
  now.mutable_run()->set_steps(1);
  now.mutable_parallel()->set_tp(8);
  now.mutable_checkpoint()->set_every_steps(3);
  EXPECT_TRUE(changed_sections(saved, now).empty());

  now.mutable_optimizer()->set_beta2(0.2);
  now.mutable_data()->mutable_train(0)->set_path("b");
  now.mutable_data()->add_train()->set_path("c");
  const std::vector<Change> changes = changed_sections(saved, now);
  std::vector<std::string> lines;
  for (const Change& c : changes) lines.push_back(c.section + " " + c.path + " " + c.saved + " " + c.now);
  EXPECT_EQ(lines, (std::vector<std::string>{"data data.train[0].path a b", "optimizer optimizer.beta2 0.1 0.2",
                                             "data data.train[1].name (none) ", "data data.train[1].path (none) c",
                                             "data data.train[1].weight (none) 1"}));
  EXPECT_EQ(changed_sections(now, saved).size(), changes.size());
}

TEST(ChangedSections, ADefaultEqualsTheSameValueSet) {
  RunConfig saved, now;
  now.mutable_optimizer()->set_beta1(0.9);
  EXPECT_TRUE(changed_sections(saved, now).empty());
}

TEST(CheckChanges, WhatIsNotAllowedIsNamed) {
  const RunConfig saved = some_config();
  RunConfig now = saved;
  now.mutable_optimizer()->set_beta2(0.2);
  now.mutable_lr_schedule()->set_warmup_steps(3);
  const std::vector<std::string> one = {"optimizer"}, both = {"lr_schedule", "optimizer"}, wrong = {"lr_scheduel"};
  EXPECT_NO_THROW(check_changes(saved, saved, {}));
  EXPECT_NO_THROW(check_changes(saved, now, both));
  try {
    check_changes(saved, now, one);
    FAIL();
  } catch (const UsageError& error) {
    EXPECT_STREQ(error.what(),
                 "the config differs from the one that this run was started with:\n"
                 "  lr_schedule.warmup_steps: was 0, is 3\n"
                 "set the fields to what they were, start another run (run.name), or go on with --allow-change "
                 "lr_schedule");
  }
  try {
    check_changes(saved, now, wrong);
    FAIL();
  } catch (const UsageError& error) {
    EXPECT_NE(std::string(error.what()).find("did you mean \"lr_schedule\"?"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace tessera
