#include "launch/config/override.h"

#include <gtest/gtest.h>

#include "launch/config/text.h"
#include "launch/run.pb.h"

namespace tessera {
namespace {

struct Overridden {
  RunConfig config;
  Origins origins;
  Problems problems;

  Overridden& set(const std::string& text) {
    apply_override(text, config, origins, problems);
    return *this;
  }
};

void expect_mistake(const std::string& text, const std::string& part) {
  Overridden o;
  o.set("data.train=a");
  const std::string before = to_text(o.config);
  o.set(text);
  ASSERT_EQ(o.problems.messages().size(), 1u) << text;
  const std::string& message = o.problems.messages()[0];
  EXPECT_TRUE(message.starts_with("--set " + text + ": ")) << message;
  EXPECT_NE(message.find(part), std::string::npos) << message;
  EXPECT_EQ(to_text(o.config), before) << text;
}

TEST(ApplyOverride, SetsScalarsOfEveryType) {
  Overridden o;
  o.set("model.hidden_size=512").set("optimizer.beta1=0.5").set("run.name=my run").set("run.seed=18446744073709551615");
  o.set("logging.tensorboard=False").set("lr_schedule.kind=wsd").set("run.dir=\"quoted\"").set("run.steps = 7");
  o.set("lr_schedule.learning_rate=1e-4").set("parallel.dp=2");
  EXPECT_TRUE(o.problems.empty());
  EXPECT_EQ(o.config.model().hidden_size(), 512);
  EXPECT_EQ(o.config.optimizer().beta1(), 0.5);
  EXPECT_EQ(o.config.run().name(), "my run");
  EXPECT_EQ(o.config.run().seed(), UINT64_MAX);
  EXPECT_FALSE(o.config.logging().tensorboard());
  EXPECT_EQ(o.config.lr_schedule().kind(), LrScheduleConfig::WSD);
  EXPECT_EQ(o.config.run().dir(), "quoted");
  EXPECT_EQ(o.config.run().steps(), 7);
  EXPECT_EQ(o.config.lr_schedule().learning_rate(), 1e-4);
  EXPECT_EQ(o.config.parallel().dp(), 2);
  EXPECT_EQ(o.origins.of("model.hidden_size"), "--set model.hidden_size=512");
}

TEST(ApplyOverride, TheLastOneHolds) {
  EXPECT_EQ(Overridden().set("run.steps=1").set("run.steps=2").config.run().steps(), 2);
}

TEST(ApplyOverride, AListIsReplacedByEqualsAndGrownByPlusEquals) {
  Overridden o;
  o.set("data.train=first").set("data.train=with=equals.h5");
  ASSERT_EQ(o.config.data().train_size(), 1);
  EXPECT_EQ(o.config.data().train(0).path(), "with=equals.h5");
  o.set("data.train+={path: \"b\" weight: 2}").set("data.train+=c");
  ASSERT_EQ(o.config.data().train_size(), 3);
  EXPECT_EQ(o.config.data().train(1).weight(), 2);
  EXPECT_EQ(o.config.data().train(2).path(), "c");
  EXPECT_EQ(o.origins.of("data.train[1].weight"), "--set data.train+={path: \"b\" weight: 2}");
  EXPECT_EQ(o.origins.of("data.train[2].path"), "--set data.train+=c");
  o.set("data.train[2].weight=5");
  EXPECT_EQ(o.config.data().train(2).weight(), 5);
  o.set("data.train=[{path: \"x\"}, {path: \"y\"}]");
  ASSERT_EQ(o.config.data().train_size(), 2);
  EXPECT_EQ(o.config.data().train(1).path(), "y");
  o.set("data.train=");
  EXPECT_EQ(o.config.data().train_size(), 0);
  EXPECT_TRUE(o.problems.empty());
}

TEST(ApplyOverride, ASectionInBracesIsReplaced) {
  Overridden o;
  o.set("optimizer.beta1=0.5").set("optimizer={beta2: 0.75}");
  EXPECT_TRUE(o.problems.empty());
  EXPECT_EQ(o.config.optimizer().beta2(), 0.75);
  EXPECT_FALSE(o.config.optimizer().has_beta1());
  EXPECT_EQ(o.origins.of("optimizer.beta1"), "");
  EXPECT_EQ(o.origins.of("optimizer.beta2"), "--set optimizer={beta2: 0.75}");
}

TEST(ApplyOverride, MistakesAreExplainedAndChangeNothing) {
  expect_mistake("model.hiden_size=3", "\"model\" has no field \"hiden_size\"; did you mean \"hidden_size\"?");
  expect_mistake("hidden_size=3", "a config has no field \"hidden_size\"; did you mean \"model.hidden_size\"?");
  expect_mistake("modell.hidden_size=3", "no field \"modell\"; did you mean \"model\"?");
  expect_mistake("model.hidden_size=big", "model.hidden_size = big: must be an integer (Expected integer, got: big)");
  expect_mistake("model.hidden_size=1.5", "must be an integer");
  expect_mistake("model.hidden_size=", "must be an integer");
  expect_mistake("model.hidden_size=1 num_hidden_layers: 2", "it sets hidden_size and num_hidden_layers");
  expect_mistake("run.seed=-1", "must be an integer of at least 0");
  expect_mistake("parallel.tp=3000000000", "must be an integer (Integer out of range");
  expect_mistake("logging.tensorboard=maybe", "must be true or false");
  expect_mistake("optimizer.beta1=much", "must be a number");
  expect_mistake("lr_schedule.kind=cosin", "unknown value \"cosin\"; did you mean \"COSINE\"?");
  expect_mistake("model=big", "\"model\" is a section; set one of its fields");
  expect_mistake("model.hidden_size.x=1", "\"model.hidden_size\" is a value");
  expect_mistake("model.hidden_size+=1", "+= is for lists");
  expect_mistake("model[0].hidden_size=1", "\"model\" is a single value");
  expect_mistake("data.train.path=x", "\"data.train\" is a list; say which element, e.g. data.train[0]");
  expect_mistake("data.train[1].path=x", "there are 1 of \"train\"");
  expect_mistake("data.train[x].path=x", "write e.g. train[0]");
  expect_mistake("data.train+={pth: \"x\"}", "must be a message in text format");
  expect_mistake("nonsense", "is not path=value");
}

}  // namespace
}  // namespace tessera
