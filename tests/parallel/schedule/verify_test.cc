#include "parallel/schedule/verify.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>

#include "parallel/schedule/generate.h"
#include "parallel/schedule/text.h"
#include "tensor/check.h"

namespace tessera {
namespace {

PipelineSchedule one_rank(const std::string& text, int microbatches) {
  return {.microbatches = microbatches, .rank_of_stage = {0}, .ranks = {parse_schedule(text)}};
}

PipelineSchedule two_ranks(const std::string& first, const std::string& second, int microbatches) {
  return {
      .microbatches = microbatches, .rank_of_stage = {0, 1}, .ranks = {parse_schedule(first), parse_schedule(second)}};
}

std::string complaint(const PipelineSchedule& schedule, const ScheduleMemory& memory = {}) {
  try {
    verify(schedule, memory);
  } catch (const UsageError& e) {
    return e.what();
  }
  return "fine";
}

void says(const PipelineSchedule& schedule, const std::string& rule) {
  const std::string found = complaint(schedule);
  EXPECT_NE(found.find(rule), std::string::npos) << to_string(schedule) << found;
}

TEST(ScheduleVerify, PeakIsTheMostMicrobatchesAlive) {
  const auto slots = [](const std::string& text, int microbatches) {
    return verify(one_rank(text, microbatches)).stages[0].slots;
  };
  EXPECT_EQ(slots("F0 F1 F2 B0 B1 B2 W0 W1 W2 R N S", 3), 3);
  EXPECT_EQ(slots("F0 F1 B0 W0 F2 B1 W1 B2 W2 R N S", 3), 2);
  EXPECT_EQ(slots("F0 B0 F1 B1 W0 W1 R N S", 2), 2);
}

TEST(ScheduleVerify, TheFirstBadActionIsShown) {
  EXPECT_EQ(complaint(one_rank("F0 B0 W0 F1 W1 B1 R N S", 2)),
            "bad schedule: rank 0: W1: BACKWARD_INPUT must come first\n"
            "  rank 0: F0 B0 W0 F1 W1 B1 R N S\n"
            "                      ^");
  EXPECT_EQ(complaint(one_rank("", 1)),
            "bad schedule: rank 0: FORWARD of microbatch 0 is missing\n  rank 0:\n          ^");
  EXPECT_EQ(complaint(two_ranks("F0 SF0 RB0 B0 W0 R N S", "RF0@1 F0@1 SB0@1 B0@1 W0@1 R@1 N S", 1)),
            "bad schedule: rank 1: SB0@1: BACKWARD_INPUT must come first\n"
            "  rank 0: F0 SF0 RB0 B0 W0 R N S\n"
            "  rank 1: RF0@1 F0@1 SB0@1 B0@1 W0@1 R@1 N S\n"
            "                     ^");
}

TEST(ScheduleVerify, RulesOfOneRank) {
  const auto one = [](const std::string& text, int microbatches, const std::string& rule) {
    says(one_rank(text, microbatches), rule);
  };
  one("F0 F0 B0 W0 R N S", 1, "it was done before");
  one("F1 F0 B0 W0 B1 W1 R N S", 2, "FORWARD goes in microbatch order: 0 comes next");
  one("F0 F1 B1 W1 B0 W0 R N S", 2, "BACKWARD_INPUT goes in microbatch order");
  one("F0 B0 W0 F1 B1 W1 R N S", 1, "there are microbatches 0 to 0");
  one("F0 F1 B0 B1 W1 W0 R N S", 2, "BACKWARD_WEIGHT goes in microbatch order");
  one("F0 B0 R W0 N S", 1, "BACKWARD_WEIGHT of microbatch 0 is missing");
  one("F0 B0 W0 N R S", 1, "REDUCE must come first");
  one("F0 B0 W0 R S N", 1, "NORM must come first");
  one("F0 B0 W0 R R N S", 1, "it was done before");
  one("F0 B0 W0 R N S S", 1, "nothing comes after STEP");
  one("F0 B0 W0 R F1 B1 W1 N S", 2, "REDUCE must come first");  // of the second microbatch
  one("F0 B0 W0 R R F1 B1 W1 R N S", 2, "BACKWARD_WEIGHT of microbatch 1 is missing");
  one("F0 B0 W0 N S R", 1, "REDUCE must come first");
  one("F0 B0 W0 R N R S", 1, "it comes before NORM");
  one("F0 B0 W0 R N S", 2, "BACKWARD_WEIGHT of microbatch 1 is missing");
  one("F0 B0 W0 R N", 1, "STEP is missing");
  one("F0 B0 W0 R", 1, "NORM is missing");
  one("F0", 2, "FORWARD of microbatch 1 is missing");
  one("F0@1 B0 W0 R N S", 1, "there is one stage");
  one("F0 SF0 B0 W0 R N S", 1, "there is no next stage");
  one("RF0 F0 B0 W0 R N S", 1, "there is no stage before");
  says({.microbatches = 1, .rank_of_stage = {0}, .ranks = {{{ActionKind::Reduce, 0, 3}}}}, "belongs to no microbatch");
  says({.microbatches = 1, .rank_of_stage = {0}, .ranks = {{}, {}}}, "no stage is placed on rank 1");
  says({.microbatches = 1, .rank_of_stage = {0, 2}, .ranks = {{}, {}}}, "placed on rank 2, but there are 2 ranks");
}

TEST(ScheduleVerify, RulesOfBlocks) {
  const auto one = [](const std::string& text, const std::string& rule) { says(one_rank(text, 1), rule); };
  EXPECT_EQ(complaint(one_rank("F0:0-1 F0:1- B0:1- W0:1- R:1- B0:0-1 W0:0-1 R:0-1 N S", 1)), "fine");
  one("F0:1- F0:0-1 B0 W0 R N S", "block 0 comes next");
  one("F0:0-1 B0 W0 R N S", "FORWARD must come first");
  one("F0 B0:0-1 B0:1- W0 R N S", "blocks go from the last to the first");
  one("F0 B0:1- W0 B0:0-1 R N S", "BACKWARD_INPUT must come first");
  one("F0 B0 W0:0-1 W0:1- R N S", "blocks go from the last to the first");
  one("F0 B0 W0:1- R W0:0-1 N S", "BACKWARD_WEIGHT of microbatch 0 is missing");
  one("F0 B0 W0 R:0-1 R:2- N S", "REDUCE must come first");
  one("F0 B0 W0 R:0-2 R:1- N S", "it was done before");
}

TEST(ScheduleVerify, RulesOfWeightsAndRecompute) {
  const auto one = [](const std::string& text, const std::string& rule) { says(one_rank(text, 1), rule); };
  EXPECT_EQ(complaint(one_rank("G:0-1 F0:0-1 G:1- X:0-1 F0:1- B0:1- W0:1- G:0-1 X:1- B0:0-1 W0:0-1 X:0-1 R N S", 1)),
            "fine");
  one("G:0-1 F0 X:0-1 B0 W0 R N S", "GATHER must come first");
  one("G F0 X B0 G W0 R N S", "GATHER must come first");
  one("G G F0 B0 W0 R N S", "it was done before");
  one("G:0-1 G:1-2 G:2- F0 B0 W0 R N S", "2 GATHERs of the rank wait for their RELEASE already");
  const ScheduleMemory memory{.stages = {{.slot = 1, .gathered = 10}}, .limits = {20}};
  EXPECT_EQ(verify(one_rank("G F0 B0 X W0 R N S", 1), memory).peak_bytes[0], 11);
  EXPECT_THROW(verify(one_rank("G:0-1 G:1- F0 B0 X:0-1 X:1- W0 R N S", 1), memory), UsageError);
  EXPECT_EQ(verify(one_rank("F0 B0 W0:1- W0:0-1 R N S", 1)).unreduced[0], 2);
  EXPECT_EQ(verify(one_rank("F0 B0 W0:1- R:1- W0:0-1 R:0-1 F1 B1 W1 R N S", 2)).unreduced[0], 1);
  one("G F0 X:0-1 B0 W0 R N S", "GATHER must come first");
  EXPECT_EQ(complaint(one_rank("F0 C0:1- B0:1- C0:0-1 B0:0-1 W0 R N S", 1)), "fine");
  one("C0 F0 B0 W0 R N S", "FORWARD must come first");
  one("F0 C0 C0:0-1 B0 W0 R N S", "it was done before");
  one("F0 B0:1- C0:0- B0:0-1 W0 R N S", "it comes before BACKWARD_INPUT of the blocks");
  EXPECT_EQ(verify(one_rank("F0 F1 C0 B0 C1 W0 B1 W1 R N S", 2)).stages[0].recompute_slots, 2);
  EXPECT_EQ(verify(one_rank("F0 F1 C0 B0 W0 C1 B1 W1 R N S", 2)).stages[0].recompute_slots, 1);
  EXPECT_EQ(verify(one_rank("F0 F1 O0 F2 I0 B0 W0 B1 W1 B2 W2 R N S", 3)).stages[0].slots, 3);
  EXPECT_EQ(verify(one_rank("F0 O0 F1 O1 F2 O2 I0 B0 W0 I1 B1 W1 I2 B2 W2 R N S", 3)).stages[0].slots, 1);
  one("F0 O0 B0 W0 R N S", "FETCH must come first");
  one("F0 I0 B0 W0 R N S", "OFFLOAD must come first");
  one("O0 F0 I0 B0 W0 R N S", "FORWARD must come first");
  one("F0 B0 O0 I0 W0 R N S", "it comes before BACKWARD_INPUT");
}

TEST(ScheduleVerify, RulesOfMessages) {
  const std::string first = "F0 SF0 RB0 B0 W0 R N S", second = "RF0@1 F0@1 B0@1 SB0@1 W0@1 R@1 N S";
  EXPECT_EQ(complaint(two_ranks(first, second, 1)), "fine");
  says(two_ranks("F0 RB0 SF0 B0 W0 R N S", second, 1), "RB0: SEND_FORWARD must come first");
  says(two_ranks("SF0 F0 RB0 B0 W0 R N S", second, 1), "SF0: FORWARD must come first");
  says(two_ranks("F0 SF0 B0 RB0 W0 R N S", second, 1), "B0: RECEIVE_BACKWARD must come first");
  says(two_ranks(first, "F0@1 RF0@1 B0@1 SB0@1 W0@1 R@1 N S", 1), "F0@1: RECEIVE_FORWARD must come first");
  says(two_ranks(first, "RF0@1 F0@1 SF0@1 B0@1 SB0@1 W0@1 R@1 N S", 1), "there is no next stage");
  says(two_ranks(first, "RF0@1 F0@1 B0@1 SB0@1 W0 R@1 N S", 1), "W0: stage 0 lies on rank 0");
  // What never comes.
  says(two_ranks("F0 RB0 B0 W0 R N S", second, 1), "SEND_FORWARD must come first");
  const std::string unsent = complaint(two_ranks(first, "RF0@1 F0@1 B0@1 W0@1 R@1 N S", 1));
  EXPECT_NE(unsent.find("rank 1: SEND_BACKWARD of microbatch 0 on stage 1 is missing"), std::string::npos) << unsent;
}

TEST(ScheduleVerify, RanksThatWaitForEachOtherAreShown) {
  // Rank 0 wants the gradient of microbatch 0 before it sends microbatch 1, rank 1 both microbatches first.
  const std::string found = complaint(two_ranks("F0 SF0 RB0 B0 W0 F1 SF1 RB1 B1 W1 R N S",
                                                "RF0@1 F0@1 RF1@1 F1@1 B0@1 SB0@1 W0@1 B1@1 SB1@1 W1@1 R@1 N S", 2));
  EXPECT_EQ(found,
            "bad schedule: rank 0: B0: it waits for ever\n"
            "  rank 0 waits in B0: the next stage has not sent its gradient (rank 1)\n"
            "  rank 1 waits in F1@1: the stage before has not sent its output (rank 0)\n"
            "  rank 0: F0 SF0 RB0 B0 W0 F1 SF1 RB1 B1 W1 R N S\n"
            "                     ^\n"
            "  rank 1: RF0@1 F0@1 RF1@1 F1@1 B0@1 SB0@1 W0@1 B1@1 SB1@1 W1@1 R@1 N S");
}

TEST(ScheduleVerify, OneRankWithTwoStagesKeepsTheirOrder) {
  const auto v = [](const std::string& text) {
    return PipelineSchedule{.microbatches = 1, .rank_of_stage = {0, 0}, .ranks = {parse_schedule(text)}};
  };
  EXPECT_EQ(complaint(v("F0 F0@1 B0@1 W0@1 B0 W0 R R@1 N S")), "fine");
  says(v("F0@1 F0 B0@1 W0@1 B0 W0 R R@1 N S"), "F0@1: FORWARD of stage 0 must come first");
  says(v("F0 F0@1 B0 W0 B0@1 W0@1 R R@1 N S"), "B0: BACKWARD_INPUT of stage 1 must come first");
  says(v("F0 SF0 F0@1 B0@1 W0@1 B0 W0 R R@1 N S"), "SF0: stage 1 lies on the same rank: there is no message");
}

TEST(ScheduleVerify, MemoryIsCountedInBytesAndLimited) {
  const PipelineSchedule schedule =
      generate({.kind = ScheduleKind::OneForwardOneBackward, .ranks = 2, .microbatches = 3});
  const ScheduleFigures figures =
      verify(schedule, {.stages = {{.slot = 100}, {.slot = 10, .input = 1}}, .limits = {200, 11}});
  EXPECT_EQ(figures.stages[0].slots, 2);
  EXPECT_EQ(figures.stages[1].slots, 1);
  EXPECT_EQ(figures.stages[0].inputs, 0);
  EXPECT_EQ(figures.stages[1].inputs, 2);  // one is alive; its gradient may be on its way when the next comes
  EXPECT_EQ(figures.peak_bytes, (std::vector<int64_t>{200, 11}));
  EXPECT_EQ(complaint(schedule, {.stages = {{.slot = 100}, {.slot = 10}}, .limits = {199, 10}}).substr(0, 82),
            "bad schedule: rank 0: F1: it makes 200 alive on the rank, whose limit is 199\n  ran");
}

TEST(ScheduleVerify, ForwardOnlyCountsBuffers) {
  for (int group : {1, 2, 5}) {
    const ScheduleFigures figures = verify(forward_only_schedule(v_placement(2), 5, group));
    EXPECT_EQ(figures.stages[1].slots, group) << group;  // read by stage 2 on the same rank
    EXPECT_EQ(figures.stages[0].slots, 1);
    EXPECT_EQ(figures.stages[3].slots, 1);
    EXPECT_EQ(figures.stages[2].inputs, 0);
    EXPECT_EQ(figures.stages[3].inputs, group == 1 ? 2 : 3);  // posted while the one before is in use
  }
}

// Any change of a right list is noticed, unless it is another right list: neighbours may be exchanged exactly when
// neither needs the other.
TEST(ScheduleVerify, RandomListsAreRightExactlyWhenDependenciesHold) {
  std::mt19937 random(7);
  int right = 0, wrong = 0;
  for (int round = 0; round < 2000; ++round) {
    Schedule list = generate({.ranks = 1, .microbatches = 3}).ranks[0];
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
      for (ActionKind kind : {ActionKind::Forward, ActionKind::BackwardInput, ActionKind::BackwardWeight}) {
        if (m > 0) holds &= place(kind, m - 1) < place(kind, m);
      }
    }
    holds &= place(ActionKind::Reduce, -1) < place(ActionKind::Norm, -1);
    holds &= place(ActionKind::Norm, -1) < place(ActionKind::Step, -1);
    EXPECT_EQ(complaint(one_rank(to_string(list), 3)) == "fine", holds) << to_string(list);
    (holds ? right : wrong)++;
  }
  EXPECT_GT(right, 0);  // both happen
  EXPECT_GT(wrong, 0);
}

}  // namespace
}  // namespace tessera
