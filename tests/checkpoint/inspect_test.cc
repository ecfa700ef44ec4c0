#include "checkpoint/inspect.h"

#include <cmath>
#include <limits>

#include "tests/checkpoint/rig.h"

namespace tessera {
namespace {

// A checkpoint of one tensor, cut over the ranks, with these values.
template <class T>
std::string save_values(const std::string& directory, int64_t step, const std::vector<T>& values, int ranks) {
  const std::vector<TestTensor> tensors = {{"w", {static_cast<int64_t>(values.size())}, dtype_of<T>()}};
  run_ranks(ranks, [&](Comm& world) {
    PosixStorage storage;
    RankState rank(tensors, {.parts = ranks}, world.rank());
    const StateSlice& slice = rank.state.slices[0];
    std::copy(values.begin() + slice.rows.begin, values.begin() + slice.rows.end, slice.data.as<T>());
    save(world, storage, rank.state, save_info(directory, step));
  });
  return directory + "/" + step_name(step);
}

TEST(Inspect, SummarisesEveryDtype) {
  const std::string directory = fresh_directory();
  PosixStorage storage;
  const auto summary = [&](const std::string& path) {
    CheckpointReader reader(storage, path);
    return inspect(reader)[0];
  };
  const auto check = [&](const TensorSummary& found, DType dtype) {
    EXPECT_EQ(found.name, "w");
    EXPECT_EQ(found.shape, Shape{3});
    EXPECT_EQ(found.dtype, dtype);
    EXPECT_EQ(found.norm, 13);  // 3, 4, 12
    EXPECT_EQ(found.min, 3);
    EXPECT_EQ(found.max, 12);
    EXPECT_EQ(found.non_finite, 0);
  };
  check(summary(save_values<double>(directory, 1, {12, 3, 4}, 2)), DType::F64);
  check(summary(save_values<float>(directory, 2, {12, 3, 4}, 2)), DType::F32);
  check(summary(save_values<bf16>(directory, 3, {bf16(12), bf16(3), bf16(4)}, 2)), DType::BF16);
  check(summary(save_values<int32_t>(directory, 4, {12, 3, 4}, 2)), DType::I32);
  check(summary(save_values<uint16_t>(directory, 5, {12, 3, 4}, 2)), DType::U16);
  check(summary(save_values<uint32_t>(directory, 6, {12, 3, 4}, 2)), DType::U32);
}

TEST(Inspect, CountsMagnitudes) {
  const std::string directory = fresh_directory();
  PosixStorage storage;
  const float least = std::numeric_limits<float>::denorm_min();
  CheckpointReader reader(storage,
                          save_values<float>(directory, 1, {0, -0.0f, 1, -1.5f, 2, 3.99f, 0.3f, least, INFINITY}, 2));
  const TensorSummary summary = inspect(reader)[0];
  EXPECT_EQ(summary.zeros, 2);
  EXPECT_EQ(summary.magnitudes, (std::map<int, int64_t>{{-149, 1}, {-2, 1}, {0, 2}, {1, 2}}));
  EXPECT_EQ(summary.non_finite, 1);
}

TEST(Inspect, CountsWhatIsNotFinite) {
  const std::string directory = fresh_directory();
  PosixStorage storage;
  const float inf = std::numeric_limits<float>::infinity();
  CheckpointReader some(storage, save_values<float>(directory, 1, {-3, NAN, 4, inf, -inf}, 2));
  TensorSummary summary = inspect(some)[0];
  EXPECT_EQ(summary.non_finite, 3);
  EXPECT_EQ(summary.norm, 5);
  EXPECT_EQ(summary.min, -3);
  EXPECT_EQ(summary.max, 4);
  CheckpointReader none(storage, save_values<float>(directory, 2, {NAN, inf}, 1));
  summary = inspect(none)[0];
  EXPECT_EQ(summary.non_finite, 2);
  EXPECT_EQ(summary.min, 0);
  EXPECT_EQ(summary.max, 0);
}

CheckpointDifference difference(const std::string& a, const std::string& b) {
  PosixStorage storage;
  CheckpointReader left(storage, a), right(storage, b);
  return diff(left, right);
}

TEST(Diff, EqualStateIsEqualOverLayouts) {
  const std::string directory = fresh_directory();
  const std::vector<TestTensor> tensors = {{"w", {1500, 1001}, DType::F32}, {"v", {7}, DType::F64}};
  save_filled(directory + "/a", 1, 1, {.parts = 1}, tensors);
  save_filled(directory + "/b", 1, 1, {.parts = 3, .replicas = 2}, tensors);
  const auto found = difference(directory + "/a/step-00000001", directory + "/b/step-00000001");
  EXPECT_TRUE(found.equal());
  EXPECT_EQ(found.tensors_compared, 2);
}

TEST(Diff, SaysByHowMuch) {
  const std::string directory = fresh_directory();
  const std::string a = save_values<double>(directory, 1, {3, 4, 0, 12}, 2);
  const std::string b = save_values<double>(directory, 2, {3, 4.25, -0.0, 11}, 3);
  const auto found = difference(a, b);
  EXPECT_FALSE(found.equal());
  ASSERT_EQ(found.tensors.size(), 1u);
  EXPECT_EQ(found.tensors[0].name, "w");
  EXPECT_EQ(found.tensors[0].elements, 4);
  EXPECT_EQ(found.tensors[0].differing, 3) << "-0 has other bits than 0";
  EXPECT_EQ(found.tensors[0].max_difference, 1);
  EXPECT_DOUBLE_EQ(found.tensors[0].relative_norm, std::sqrt(1 + 0.0625) / 13);
  EXPECT_EQ(found.cursors,
            (std::vector<std::string>{"step: 1 against 2", "samples: 8 against 16", "tokens: 1024 against 2048"}));
}

TEST(Diff, NanIsEqualToItsOwnBits) {
  const std::string directory = fresh_directory();
  const std::string a = save_values<float>(directory + "/a", 1, {NAN, 1, 2}, 1);
  EXPECT_TRUE(difference(a, save_values<float>(directory + "/b", 1, {NAN, 1, 2}, 1)).equal());
  const auto found = difference(a, save_values<float>(directory + "/c", 1, {0, 1, 5}, 1));
  ASSERT_EQ(found.tensors.size(), 1u);
  EXPECT_EQ(found.tensors[0].differing, 2);
  EXPECT_TRUE(std::isnan(found.tensors[0].max_difference));
}

TEST(Diff, NamesWhatCannotBeCompared) {
  const std::string directory = fresh_directory();
  save_filled(directory + "/a", 1, 1, {}, {{"only a", {2}}, {"shape", {2, 3}}, {"type", {2}, DType::F32}});
  save_filled(directory + "/b", 1, 1, {}, {{"only b", {2}}, {"shape", {3, 2}}, {"type", {2}, DType::F64}});
  const auto found = difference(directory + "/a/step-00000001", directory + "/b/step-00000001");
  ASSERT_EQ(found.tensors.size(), 4u);
  EXPECT_EQ(found.tensors[0].only, "only in A");
  EXPECT_EQ(found.tensors[1].only, "only in B");
  EXPECT_EQ(found.tensors[2].only, "shape [2, 3] against [3, 2]");
  EXPECT_EQ(found.tensors[3].only, "F32 against F64");
  EXPECT_EQ(found.tensors_compared, 0);
}

TEST(Diff, ComparesCursors) {
  const std::string directory = fresh_directory();
  for (const bool second : {false, true}) {
    run_ranks(1, [&](Comm& world) {
      PosixStorage storage;
      State state;
      state.cursors.numbers = {{"same", 1}, {"n", second ? 2 : 1}};
      state.cursors.texts = {{second ? "new" : "old", "x"}};
      save(world, storage, state, save_info(directory + (second ? "/b" : "/a"), 1));
    });
  }
  EXPECT_EQ(difference(directory + "/a/step-00000001", directory + "/b/step-00000001").cursors,
            (std::vector<std::string>{"n: 1 against 2", "old: only in A", "new: only in B"}));
}

}  // namespace
}  // namespace tessera
