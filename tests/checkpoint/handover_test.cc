#include "checkpoint/handover.h"

#include "tests/checkpoint/layouts.h"
#include "tests/checkpoint/rig.h"

namespace tessera {
namespace {

// From any layout to any other, the first one's memory gone in between.
TEST(Handover, EveryLayoutTakesOverFromEveryOther) {
  const std::vector<Layout> layouts = {{.pp = 4},
                                       {.dp = 4},
                                       {.dp = 4, .zero = true},
                                       {.tp = 4},
                                       {.pp = 2, .tp = 2},
                                       {.dp = 2, .cp = 2, .zero = true},
                                       {.pp = 2, .dp = 2, .zero = true}};
  const std::vector<TestTensor> tensors = transformer_tensors(21);
  for (const Layout& from : layouts) {
    for (const Layout& to : layouts) {
      run_ranks(4, [&](Comm& world) {
        auto before = std::make_unique<RankState>(tensors, held_by(tensors, from, world.rank()));
        before->fill(6);
        Handover handover(world, before->state);
        const Cursors cursors = before->state.cursors;
        before.reset();
        RankState after(tensors, held_by(tensors, to, world.rank()));
        handover.into(after.state);
        EXPECT_EQ(after.wrong(6), 0) << from.str() << " to " << to.str() << " rank " << world.rank();
        EXPECT_EQ(after.state.cursors, cursors);
      });
    }
  }
}

TEST(Handover, AnotherModelIsRefusedBeforeAnythingIsOverwritten) {
  const std::vector<TestTensor> small = small_tensors();
  std::vector<TestTensor> fewer = small, other = small;
  fewer.pop_back();
  other[0].shape = Shape{13, 5};
  run_ranks(2, [&](Comm& world) {
    const auto refused = [&](const std::vector<TestTensor>& from, const std::vector<TestTensor>& to) {
      RankState before(from, Holding{2, 1}, world.rank()), after(to, Holding{2, 1}, world.rank());
      before.fill(6);
      after.fill(8);
      Handover handover(world, before.state);
      const std::string message = testing::message_of<CheckpointError>([&] { handover.into(after.state); });
      EXPECT_EQ(after.wrong(8), 0);
      return message;
    };
    EXPECT_NE(refused(small, fewer).find("has a tensor counts [5, 2, 3] I32 that there is no place for"),
              std::string::npos);
    EXPECT_NE(refused(fewer, small).find("of tensor counts [5, 2, 3] in I32"), std::string::npos);
    EXPECT_NE(refused(small, other).find("another model or optimizer"), std::string::npos);
  });
}

}  // namespace
}  // namespace tessera
