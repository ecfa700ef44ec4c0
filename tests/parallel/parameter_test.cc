#include "parallel/parameter.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace tessera {
namespace {

std::vector<float> initial(const Parameter& parameter, const Interval& rows, uint64_t seed) {
  Context context({});
  std::vector<float> x(rows.size() * parameter.global_shape.row_size(), -7.0f);
  initialise(context, parameter, rows, seed,
             Tensor(std::span<float>(x), parameter.global_shape.with_rows(rows.size())));
  return x;
}

TEST(Parameter, EveryShardDrawsItsOwnValues) {
  Parameter weight;
  weight.name = "blocks.3.attention.qkv";
  weight.global_shape = Shape{37, 5, 3};
  weight.rows = {0, 37};
  const std::vector<float> whole = initial(weight, weight.rows, 1);
  for (int parts : {2, 3, 8, 40}) {
    std::vector<float> joined;
    for (int i = 0; i < parts; ++i) {
      const std::vector<float> part = initial(weight, shard(weight.rows, parts, i), 1);
      joined.insert(joined.end(), part.begin(), part.end());
    }
    EXPECT_EQ(joined, whole);
  }
  EXPECT_NE(initial(weight, weight.rows, 2), whole);
  Parameter other = weight;
  other.name = "blocks.4.attention.qkv";
  EXPECT_NE(initial(other, other.rows, 1), whole);
}

TEST(Parameter, DistributionsAreAsAsked) {
  Parameter weight;
  weight.name = "w";
  weight.global_shape = Shape{400, 100};
  weight.standard_deviation = 0.5;
  const std::vector<float> x = initial(weight, {0, 400}, 5);
  double sum = 0, squares = 0;
  for (float v : x) {
    sum += v;
    squares += static_cast<double>(v) * v;
  }
  const auto n = static_cast<double>(x.size());
  // Five standard errors of the mean, and of the variance (2 sigma^4 / n for a normal distribution).
  EXPECT_LT(std::abs(sum / n), 5 * 0.5 / std::sqrt(n));
  EXPECT_LT(std::abs(squares / n - 0.25), 5 * 0.25 * std::sqrt(2 / n));

  weight.initialisation = Initialisation::One;
  EXPECT_EQ(initial(weight, {3, 5}, 5), std::vector<float>(200, 1.0f));
  weight.initialisation = Initialisation::Zero;
  EXPECT_EQ(initial(weight, {3, 5}, 5), std::vector<float>(200, 0.0f));
}

}  // namespace
}  // namespace tessera
