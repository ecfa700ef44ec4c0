#include "parallel/schedule_generate.h"

#include <gtest/gtest.h>

#include "parallel/schedule_text.h"
#include "tensor/check.h"

namespace tessera {
namespace {

std::string complaint(const ScheduleSpec& spec) {
  try {
    generate(spec);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "fine";
}

TEST(ScheduleGenerate, KindsHaveNames) {
  for (const char* text : {"gpipe", "1f1b", "interleaved"}) EXPECT_STREQ(name(parse_schedule_kind(text)), text);
  EXPECT_THROW(parse_schedule_kind("2f2b"), UsageError);
}

TEST(ScheduleGenerate, OneRankAccumulates) {
  EXPECT_EQ(to_string(generate({.microbatches = 2}).ranks[0]), "F0 B0 W0 F1 B1 W1 R N S");
}

TEST(ScheduleGenerate, NumbersThatMakeNoScheduleAreRefused) {
  EXPECT_EQ(complaint({.ranks = 0}), "schedule: 0 stages: there must be 1 or more");
  EXPECT_EQ(complaint({.microbatches = 0}), "schedule: 0 microbatches: there must be 1 or more");
  EXPECT_EQ(complaint({.chunks = 2}), "schedule: 2 chunks: 1f1b has 1 a rank; interleaved has any number");
  EXPECT_EQ(complaint({.group = 2}), "schedule: group of 2: 1f1b has no microbatch groups; interleaved has them");
  EXPECT_EQ(complaint({.kind = ScheduleKind::Interleaved, .ranks = 2, .microbatches = 3, .chunks = 3, .group = 2}), "fine");
}

}  // namespace
}  // namespace tessera
