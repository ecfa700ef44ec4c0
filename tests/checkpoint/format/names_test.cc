#include "checkpoint/format/names.h"

#include <gtest/gtest.h>

namespace tessera {
namespace {

TEST(Names, StepsAndBack) {
  for (const int64_t step : {int64_t{0}, int64_t{1000}, int64_t{99999999}, int64_t{123456789012}}) {
    EXPECT_EQ(published_step(step_name(step)), step);
    EXPECT_EQ(temporary_step(temporary_name(step, "run-1")), step);
    EXPECT_FALSE(published_step(temporary_name(step, "run-1")));
    EXPECT_FALSE(temporary_step(step_name(step)));
  }
  EXPECT_EQ(step_name(1000), "step-00001000");
}

TEST(Names, OthersAreNoSteps) {
  for (const char* name : {"", "step-", "step-1000", "step-0000100x", "step--0001000", "step-00001000 ", "LATEST",
                           "step-99999999999999999999", "step-00001000.old"}) {
    EXPECT_FALSE(published_step(name)) << name;
    EXPECT_FALSE(temporary_step(name)) << name;
  }
}

TEST(Names, PathsAreTakenApart) {
  EXPECT_EQ(base_name("/runs/a/step-00001000/"), "step-00001000");
  EXPECT_EQ(base_name("step-00001000"), "step-00001000");
  EXPECT_EQ(base_name("/"), "/");
  EXPECT_EQ(join("/runs", "a"), "/runs/a");
}

}  // namespace
}  // namespace tessera
