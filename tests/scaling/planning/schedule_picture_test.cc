#include "scaling/planning/schedule_picture.h"

#include <gtest/gtest.h>

#include "parallel/schedule/generate.h"

namespace tessera {
namespace {

TEST(SchedulePicture, TheGridShowsTimeToTheRight) {
  const PipelineSchedule schedule = generate({.ranks = 2, .microbatches = 2});
  EXPECT_EQ(schedule_grid(schedule, simulate(schedule, {}), 100),
            "rank 0: F0 F1 ...B0 W0 ...B1 W1 \n"
            "rank 1: ...F0 B0 W0 F1 B1 W1 ...\n");
}

TEST(SchedulePicture, LongActionsAreFilledAndLaterStagesHaveALetter) {
  const PipelineSchedule schedule = generate({.kind = ScheduleKind::ZbV, .ranks = 1, .microbatches = 1});
  SimulationCosts costs;
  costs.passes.stages = {{2, 1, 1}, {1, 1, 1}};
  EXPECT_EQ(schedule_grid(schedule, simulate(schedule, costs), 100), "rank 0: F0----- F0b B0b B0- W0b W0- \n");
}

TEST(SchedulePicture, LongGridsAreCutIntoBands) {
  const PipelineSchedule schedule = generate({.ranks = 1, .microbatches = 4});
  EXPECT_EQ(schedule_grid(schedule, simulate(schedule, {}), 28),
            "rank 0: F0 B0 W0 F1 B1 W1 F2\n\nrank 0:  B2 W2 F3 B3 W3 \n");
}

TEST(SchedulePicture, TheSvgHasABoxForEveryComputeAction) {
  const PipelineSchedule schedule = generate({.kind = ScheduleKind::ZbV, .ranks = 3, .microbatches = 5});
  const std::string svg = schedule_svg(schedule, simulate(schedule, {}), "a < b & c");
  size_t boxes = 0;
  for (size_t at = svg.find("<title>"); at != std::string::npos; at = svg.find("<title>", at + 1)) ++boxes;
  EXPECT_EQ(boxes, 3u * 2 * 5 * 3);
  EXPECT_NE(svg.find("a &lt; b &amp; c"), std::string::npos);
  EXPECT_NE(svg.find("BACKWARD_WEIGHT of stage 5, microbatch 4: "), std::string::npos);
  EXPECT_NE(svg.find(">backward: gradients of the weights</text>"), std::string::npos) << "a legend in plain words";
  EXPECT_NE(svg.find(">time</text>"), std::string::npos);
  EXPECT_NE(svg.find("text-anchor=\"middle\" fill=\"#555555\">10</text>"), std::string::npos) << "a tick";
  EXPECT_EQ(svg.substr(svg.size() - 7), "</svg>\n");
}

}  // namespace
}  // namespace tessera
