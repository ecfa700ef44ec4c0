#include "parallel/schedule/text.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>

#include "parallel/schedule/generate.h"
#include "tensor/check.h"

namespace tessera {
namespace {

TEST(ScheduleText, ActionsAreReadBack) {
  const Schedule list = {{ActionKind::Forward, 3, 17},
                         {ActionKind::BackwardInput, 0, 0, {2, BlockRange::kToEnd}},
                         {ActionKind::BackwardWeight, 1, 0, {0, 2}},
                         {ActionKind::SendForward, 0, 5},
                         {ActionKind::ReceiveForward, 12, 5},
                         {ActionKind::SendBackward, 1, 5},
                         {ActionKind::ReceiveBackward, 0, 5},
                         {ActionKind::Recompute, 0, 5, {1, 3}},
                         {ActionKind::Offload, 0, 5},
                         {ActionKind::Fetch, 0, 5},
                         {ActionKind::Gather, 2, -1, {0, 1}},
                         {ActionKind::Release, 2, -1, {0, 1}},
                         {ActionKind::Reduce, 2, -1},
                         {ActionKind::Norm},
                         {ActionKind::Step}};
  EXPECT_EQ(to_string(list), "F17@3 B0:2- W0@1:0-2 SF5 RF5@12 SB5@1 RB5 C5:1-3 O5 I5 G@2:0-1 X@2:0-1 R@2 N S");
  EXPECT_EQ(parse_schedule(to_string(list)), list);
  EXPECT_EQ(parse_schedule("  F17@3\n\tB0:2- "), Schedule(list.begin(), list.begin() + 2));
  EXPECT_TRUE(parse_schedule("").empty());
}

TEST(ScheduleText, WhatIsNoActionIsNamed) {
  for (const char* bad : {"X0",    "F",       "R1",     "F0B0",   "F0@",   "F-1",  "F99999999999", "f0",  "FF0", "N@1",
                          "S:0-1", "SF0:0-1", "F0:2-1", "F0:1-1", "F0:-2", "F0:1", "F0@1@1",       "F0,", "G0",  "0"}) {
    try {
      parse_schedule(bad);
      ADD_FAILURE() << bad;
    } catch (const UsageError& error) {
      EXPECT_NE(std::string(error.what()).find(std::string("'") + bad + "'"), std::string::npos) << error.what();
    }
  }
}

TEST(ScheduleText, FilesAreReadBack) {
  const std::string path = ::testing::TempDir() + "schedule_text_test." + std::to_string(getpid());
  for (ScheduleKind kind : {ScheduleKind::GPipe, ScheduleKind::OneForwardOneBackward, ScheduleKind::Interleaved}) {
    const PipelineSchedule schedule = generate({.kind = kind, .ranks = 3, .microbatches = 4});
    write_schedule_file(path, schedule);
    EXPECT_EQ(read_schedule_file(path), schedule);
  }
  std::remove(path.c_str());
  EXPECT_THROW(read_schedule_file(path), UsageError);
  EXPECT_THROW(write_schedule_file("/nowhere/at/all", {}), IoError);
  EXPECT_EQ(to_string(generate({.ranks = 2, .microbatches = 1})),
            "tessera schedule 1\nmicrobatches 1\nplacement 0 1\n"
            "rank 0: F0 SF0 RB0 B0 W0 R N S\n"
            "rank 1: RF0@1 F0@1 B0@1 SB0@1 W0@1 R@1 N S\n");
}

TEST(ScheduleText, AWrongFileNamesTheLine) {
  const auto says = [](const std::string& text, const std::string& what) {
    try {
      parse_pipeline_schedule(text);
      ADD_FAILURE() << what;
    } catch (const UsageError& error) {
      EXPECT_NE(std::string(error.what()).find(what), std::string::npos) << error.what();
    }
  };
  const std::string head = "# made by hand\ntessera schedule 1\n";
  says("", "it is empty");
  says("tessera schedule 2\n", "line 1: 'tessera schedule 2', but a schedule begins with 'tessera schedule 1'");
  says(head + "microbatches 0\n", "line 3: one number");
  says(head + "microbatches x\n", "line 3: 'x' is no number");
  says(head + "placement 0 -1\n", "line 3: '-1' is no number");
  says(head + "microbatches 1\nplacement 0\nrank 1: F0\n", "line 5: 'rank 1:', but 'rank 0:' comes next");
  says(head + "microbatches 1\nplacement 0\nrank 0: F0 Q\n", "line 5: schedule: 'Q' is no action");
  says(head + "microbatches 1\nplacement 0 1\nrank 0: F0\n", "stage 1 is placed on rank 1, but there are ranks 0 to 0");
  says(head + "placement 0\nrank 0: F0\n", "'microbatches N' is missing");
  says(head + "microbatches 1\nrank 0: F0\n", "'placement RANK ...' is missing");
  says(head + "steps 1\n", "line 3: 'steps', but");
  EXPECT_EQ(
      parse_pipeline_schedule(head + "microbatches 1 # one\nplacement 0\n\nrank 0: F0 # and so on\n").ranks[0].size(),
      1u);
}

TEST(ScheduleText, AnArrowPointsAtAnAction) {
  const PipelineSchedule schedule = generate({.ranks = 2, .microbatches = 1});
  EXPECT_EQ(grid_with_arrow(schedule, 0, {3, 0}),
            "\n  rank 0: F0 SF0 RB0 B0 W0 R N S\n                     ^"
            "\n  rank 1: RF0@1 F0@1 B0@1 SB0@1 W0@1 R@1 N S");
  EXPECT_EQ(grid_with_arrow(schedule, 1, {0, 8}),
            "\n  rank 0: F0 SF0 RB0 B0 W0 R N S"
            "\n  rank 1: RF0@1 F0@1 B0@1 SB0@1 W0@1 R@1 N S\n                                             ^");
  const std::string cut = grid_with_arrow(generate({.ranks = 1, .microbatches = 40}), 0, {60});
  EXPECT_EQ(cut.find("\n  rank 0: ... B15 W15 F16"), 0u) << cut;
  const size_t line = cut.find('\n', 1);
  EXPECT_EQ(cut.substr(line - 4, 4), " ...");
  EXPECT_EQ(cut.substr(cut.find('^') - line, 3), "F20") << cut;  // the lines are as long as the arrow is far
}

}  // namespace
}  // namespace tessera
