#include "parallel/schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>

#include "tensor/check.h"

namespace tessera {
namespace {

std::string complaint(const std::string& text, int microbatches) {
  try {
    verify(parse_schedule(text), microbatches);
  } catch (const InternalError& e) {
    return e.what();
  }
  return "fine";
}

TEST(Schedule, AccumulationRunsMicrobatchesOneByOne) {
  EXPECT_EQ(to_string(accumulation_schedule(1)), "F0 B0 W0 R N S");
  EXPECT_EQ(to_string(accumulation_schedule(3)), "F0 B0 W0 F1 B1 W1 F2 B2 W2 R N S");
  EXPECT_EQ(to_string(forward_schedule(2)), "F0 F1");
  for (int m : {1, 2, 7, 64}) {
    EXPECT_EQ(verify(accumulation_schedule(m), m), 1);
    EXPECT_EQ(verify(forward_schedule(m), m), 0);
  }
  EXPECT_THROW(accumulation_schedule(0), InternalError);
}

TEST(Schedule, TextIsReadBack) {
  for (int m : {1, 3, 12}) {
    EXPECT_EQ(parse_schedule(to_string(accumulation_schedule(m))), accumulation_schedule(m));
  }
  const Schedule other = {{ActionKind::Forward, 3, 17}, {ActionKind::Reduce, 2, -1}};
  EXPECT_EQ(to_string(other), "F17@3 R@2");
  EXPECT_EQ(parse_schedule("  F17@3\n R@2 "), other);
  EXPECT_TRUE(parse_schedule("").empty());
  for (const char* bad : {"X0", "F", "R1", "F0B0", "F0@", "F-1", "F99999999999"}) {
    EXPECT_THROW(parse_schedule(bad), UsageError) << bad;
  }
}

TEST(Schedule, PeakIsTheMostMicrobatchesAlive) {
  EXPECT_EQ(verify(parse_schedule("F0 F1 F2 B2 B0 B1 W0 W1 W2 R N S"), 3), 3);
  EXPECT_EQ(verify(parse_schedule("F0 F1 B0 W0 F2 B1 W1 B2 W2 R N S"), 3), 2);
  EXPECT_EQ(verify(parse_schedule("F0 B0 F1 B1 W0 W1 R N S"), 2), 2);
}

TEST(Schedule, TheFirstBadActionIsShown) {
  EXPECT_EQ(complaint("F0 B0 W0 F1 W1 B1 R N S", 2),
            "bad schedule: W1: BACKWARD_INPUT must come first\n"
            "  F0 B0 W0 F1 W1 B1 R N S\n"
            "              ^");
  EXPECT_EQ(complaint("B0 F0 W0 R N S", 1), "bad schedule: B0: FORWARD must come first\n  B0 F0 W0 R N S\n  ^");
  EXPECT_EQ(complaint("F0 B0 W0 R N", 1), "bad schedule: STEP is missing\n  F0 B0 W0 R N\n               ^");
  EXPECT_EQ(complaint("", 1), "bad schedule: FORWARD of microbatch 0 is missing\n  \n  ^");
}

TEST(Schedule, EveryRuleIsChecked) {
  const auto says = [](const std::string& text, int microbatches, const std::string& rule) {
    const std::string found = complaint(text, microbatches);
    EXPECT_NE(found.find(rule), std::string::npos) << text << ": " << found;
  };
  says("F0 F0 B0 W0 R N S", 1, "it was done before");
  says("F0 B0 W0 F1 B1 W1 R N S", 1, "there are microbatches 0 to 0");
  says("F0 F1 B0 B1 W1 W0 R N S", 2, "BACKWARD_WEIGHT goes in microbatch order");
  says("F0 B0 R W0 N S", 1, "BACKWARD_WEIGHT of microbatch 0 is missing");
  says("F0 B0 W0 N R S", 1, "REDUCE must come first");
  says("F0 B0 W0 R S N", 1, "NORM must come first");
  says("F0 B0 W0 R N S S", 1, "nothing comes after STEP");
  says("F0 B0 W0 R F1 B1 W1 N S", 2, "is missing");
  says("F0 B0 W0 R N S", 2, "FORWARD of microbatch 1 is missing");
  says("F0", 2, "FORWARD of microbatch 1 is missing");
  says("F0@1 B0 W0 R N S", 1, "there is one stage");
  EXPECT_THROW(verify({{ActionKind::Reduce, 0, 3}}, 1), InternalError);
}

// Any change of a right list is noticed, unless it is another right list: two neighbours of the random list below may
// be exchanged exactly when neither needs the other.
TEST(Schedule, RandomListsAreRightExactlyWhenDependenciesHold) {
  std::mt19937 random(7);
  int right = 0, wrong = 0;
  for (int round = 0; round < 2000; ++round) {
    Schedule list = accumulation_schedule(3);
    for (int swaps = 0; swaps < 4; ++swaps) {
      const size_t at = random() % (list.size() - 1);
      std::swap(list[at], list[at + 1]);
    }
    const auto place = [&](ActionKind kind, int m) {
      return std::find(list.begin(), list.end(), Action{.kind = kind, .microbatch = m}) - list.begin();
    };
    bool holds = true;
    for (int m = 0; m < 3; ++m) {
      holds &= place(ActionKind::Forward, m) < place(ActionKind::BackwardInput, m);
      holds &= place(ActionKind::BackwardInput, m) < place(ActionKind::BackwardWeight, m);
      holds &= place(ActionKind::BackwardWeight, m) < place(ActionKind::Reduce, -1);
      if (m > 0) holds &= place(ActionKind::BackwardWeight, m - 1) < place(ActionKind::BackwardWeight, m);
    }
    holds &= place(ActionKind::Reduce, -1) < place(ActionKind::Norm, -1);
    holds &= place(ActionKind::Norm, -1) < place(ActionKind::Step, -1);
    EXPECT_EQ(complaint(to_string(list), 3) == "fine", holds) << to_string(list);
    (holds ? right : wrong)++;
  }
  EXPECT_GT(right, 0);  // both happen
  EXPECT_GT(wrong, 0);
}

}  // namespace
}  // namespace tessera
