#include "model/shape/recompute.h"

#include <gtest/gtest.h>

#include "tensor/check.h"

namespace tessera {
namespace {

constexpr Recompute kNone = Recompute::None, kSelective = Recompute::Selective, kFull = Recompute::Full;

TEST(Recompute, OneModeForAllBlocks) {
  EXPECT_EQ(recompute_plan("none", 2), (std::vector<Recompute>{kNone, kNone}));
  EXPECT_EQ(recompute_plan("selective", 2), (std::vector<Recompute>{kSelective, kSelective}));
  EXPECT_EQ(recompute_plan("full", 2), (std::vector<Recompute>{kFull, kFull}));
}

TEST(Recompute, APlanNamesBlocks) {
  EXPECT_EQ(recompute_plan("full:0-1,selective:3", 5),
            (std::vector<Recompute>{kFull, kFull, kNone, kSelective, kNone}));
  EXPECT_EQ(recompute_plan("selective:4", 5), (std::vector<Recompute>{kNone, kNone, kNone, kNone, kSelective}));
}

TEST(Recompute, RefusesWhatIsNoPlan) {
  for (const char* text : {"", "some", "full:", "full:a", "full:1-", "full:2-1", "full:0-1-2", "full:0:1", "full,none",
                           "full:5", "full:0-5", "full:0-2,selective:2", "full:-1", "full:99999999999999999999"}) {
    EXPECT_THROW(recompute_plan(text, 5), UsageError) << text;
  }
  try {
    recompute_plan("full:0-7", 5);
  } catch (const UsageError& error) {
    EXPECT_STREQ(
        error.what(),
        "parallel.recompute = full:0-7: 'full:0-7' ends behind the last block; choose none, selective or full, "
        "or a plan like full:0-3,selective:4-7 over blocks 0 to 4");
  }
}

}  // namespace
}  // namespace tessera
