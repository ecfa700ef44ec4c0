// What a stage keeps itself goes with the optimizer's state into a checkpoint and comes back.
#include <gtest/gtest.h>

#include <vector>

#include "parallel/saved_state.h"
#include "tests/checkpoint/rig.h"
#include "tests/parallel/fake_pipeline.h"

namespace tessera {
namespace {

// One master weight, beside the stages' own state.
class OneWeight : public FakeReducer {
 public:
  OneWeight(Log& log, std::span<float> weight) : FakeReducer(log, 1.0), weight_(weight) {}
  std::vector<StateSlice> state() override {
    return {{.name = std::string(kMasterPrefix) + "w", .global_shape = {2}, .rows = {0, 2}, .data = {weight_, {2}}}};
  }

 private:
  std::span<float> weight_;
};

TEST(SavedState, OfStagesSurvivesSaveAndLoad) {
  const std::string directory = fresh_directory();
  // The second time with the stages on other ranks than those that saved.
  for (const bool saving : {true, false}) {
    run_ranks(2, [&](Comm& world) {
      const int index = saving ? world.rank() : 1 - world.rank();
      Log log;
      FakeSource source(log, 1, 1);
      FakeStage stage(log, source, index, 2, 1, 1.0);
      std::vector<float> weight(2, saving ? 5.0f : 0.0f), bias(3, saving ? 7.0f + static_cast<float>(index) : 0.0f);
      stage.own_state = {{.name = "router/blocks." + std::to_string(index) + ".bias",
                          .global_shape = {3},
                          .rows = {0, 3},
                          .data = Tensor(std::span<float>(bias), {3})}};
      OneWeight optimizer(log, weight);
      Stage* const stages[] = {&stage};
      State state;
      state.slices = saved_slices(optimizer, stages);
      ASSERT_EQ(state.slices.size(), 2u);
      EXPECT_EQ(state.slices[0].name, "master/w");
      PosixStorage storage;
      if (saving) {
        save(world, storage, state, save_info(directory, 4));
      } else {
        ASSERT_TRUE(resume(world, storage, directory, state).checkpoint.has_value());
      }
      EXPECT_EQ(weight, std::vector<float>(2, 5.0f));
      EXPECT_EQ(bias, std::vector<float>(3, 7.0f + static_cast<float>(index)));
    });
  }
}

}  // namespace
}  // namespace tessera
