#include "parallel/comm/reduction.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "tensor/check.h"

namespace tessera {
namespace {

template <class T>
class Reductions : public ::testing::Test {};
using Floats = ::testing::Types<double, float, bf16>;
TYPED_TEST_SUITE(Reductions, Floats);

// Against the definition, element by element; out apart, and as each of the parts.
TYPED_TEST(Reductions, AddInOrderAndRoundOnce) {
  using T = TypeParam;
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0, 100);
  for (size_t ranks : {1, 2, 3, 8}) {
    for (int64_t count : {0, 1, 15, 1024, 1025, 3000}) {
      std::vector<std::vector<T>> inputs(ranks, std::vector<T>(count));
      for (auto& input : inputs) {
        for (T& x : input) x = static_cast<T>(static_cast<Acc<T>>(normal(random)));
      }
      std::vector<Acc<T>> expected(count);
      for (int64_t i = 0; i < count; ++i) {
        expected[i] = static_cast<Acc<T>>(inputs[0][i]);
        for (size_t r = 1; r < ranks; ++r) expected[i] += static_cast<Acc<T>>(inputs[r][i]);
      }
      for (size_t in_place = 0; in_place <= ranks; ++in_place) {
        std::vector<std::vector<T>> parts = inputs;
        parts.emplace_back(count);
        std::vector<const std::byte*> pointers;
        for (size_t r = 0; r < ranks; ++r) pointers.push_back(reinterpret_cast<const std::byte*>(parts[r].data()));
        reduce_in_rank_order(pointers, reinterpret_cast<std::byte*>(parts[in_place].data()), count, dtype_of<T>(),
                             Reduction::Sum);
        for (int64_t i = 0; i < count; ++i) {
          ASSERT_EQ(static_cast<double>(parts[in_place][i]), static_cast<double>(static_cast<T>(expected[i])));
        }
      }
    }
  }
}

TEST(Reduction, RefusesU16) {
  const uint16_t x = 1;
  uint16_t out = 0;
  const std::byte* part = reinterpret_cast<const std::byte*>(&x);
  EXPECT_THROW(reduce_in_rank_order({&part, 1}, reinterpret_cast<std::byte*>(&out), 1, DType::U16, Reduction::Sum),
               InternalError);
}

}  // namespace
}  // namespace tessera
