#include "tensor/ops/cross_entropy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/support/central_difference.h"
#include "tests/support/operand.h"
#include "tests/support/same_bits.h"
#include "tests/support/tolerance.h"

namespace tessera {
namespace {

using testing::Operand;

constexpr DType kLogitDTypes[] = {DType::F64, DType::F32};

// One rank's columns of the logits, and what it computes.
struct Part {
  Part(const Operand& whole, int64_t columns, int64_t begin, int64_t end, DType gradient)
      : first_column(begin),
        logits({whole.size() / columns, end - begin}, whole.dtype()),
        maximum({whole.size() / columns}, whole.dtype()),
        sums({2, whole.size() / columns}, whole.dtype()),
        dlogits({whole.size() / columns, end - begin}, gradient) {
    for (int64_t i = 0; i < logits.size(); ++i) {
      logits.set(i, whole[i / (end - begin) * columns + begin + i % (end - begin)]);
    }
  }
  int64_t first_column;
  Operand logits, maximum, sums, dlogits;
};

// The whole computation over ranks that end at the given columns. Returns the loss.
double run(Context& context, std::vector<Part>& parts, std::span<const int32_t> target, double scale) {
  for (Part& p : parts) cross_entropy_maximum(context, p.logits.tensor(), p.maximum.tensor());
  for (int64_t t = 0; t < parts[0].maximum.size(); ++t) {
    double most = -std::numeric_limits<double>::infinity();
    for (const Part& p : parts) most = std::max(most, p.maximum[t]);
    for (Part& p : parts) p.maximum.set(t, most);
  }
  for (Part& p : parts) {
    cross_entropy_sums(context, p.logits.tensor(), target, p.first_column, p.maximum.tensor(), p.sums.tensor());
  }
  for (int64_t i = 0; i < parts[0].sums.size(); ++i) {
    double sum = 0;
    for (const Part& p : parts) sum += p.sums[i];
    for (Part& p : parts) p.sums.set(i, sum);
  }
  for (Part& p : parts) {
    cross_entropy_backward(context, p.logits.tensor(), target, p.first_column, p.maximum.tensor(), p.sums.tensor(),
                           scale, p.dlogits.tensor());
  }
  Operand loss = Operand::filled({1}, DType::F64, 0);
  cross_entropy_loss(context, target, parts[0].sums.tensor(), loss.tensor());
  const double once = loss[0];
  cross_entropy_loss(context, target, parts[0].sums.tensor(), loss.tensor());
  EXPECT_TRUE(loss[0] == 2 * once || std::isnan(once)) << loss[0];  // added to what is there
  return once;
}

std::vector<int32_t> targets(int64_t tokens, int64_t columns) {
  std::vector<int32_t> target(tokens);
  const RandomStream stream(5, "target");
  for (int64_t t = 0; t < tokens; ++t) target[t] = static_cast<int32_t>(stream.below(t, columns + 1)) - 1;
  return target;
}

void check(int64_t tokens, int64_t columns, std::vector<int64_t> ends, DType dtype, DType gradient) {
  SCOPED_TRACE(std::string(name(dtype)) + ", gradient " + name(gradient) + ", " + std::to_string(tokens) + " x " +
               std::to_string(columns) + " over " + std::to_string(ends.size()));
  Context context(testing::on_device({.threads = 2}));
  const double scale = 0.125;
  const Operand whole = Operand::random({tokens, columns}, dtype, "logits", 4);
  const std::vector<int32_t> target = targets(tokens, columns);
  std::vector<Part> parts;
  int64_t begin = 0;
  for (const int64_t end : ends) {
    parts.emplace_back(whole, columns, begin, end, gradient);
    begin = end;
  }
  const double loss = run(context, parts, target, scale);

  double exact_loss = 0, loss_bound = 0;
  for (int64_t t = 0; t < tokens; ++t) {
    double most = -std::numeric_limits<double>::infinity(), least = -most, sum = 0;
    for (int64_t v = 0; v < columns; ++v) {
      most = std::max(most, whole[t * columns + v]);
      least = std::min(least, whole[t * columns + v]);
    }
    for (int64_t v = 0; v < columns; ++v) sum += std::exp(whole[t * columns + v] - most);
    // An exponential is off by 2 roundings and, relatively, by the rounding of its argument times that argument.
    const double roundings = static_cast<double>(columns) + 2 + (most - least);
    if (target[t] >= 0) {
      const double down = whole[t * columns + target[t]] - most;
      exact_loss += std::log(sum) - down;
      loss_bound += testing::tolerance(dtype, dtype, roundings, 1 + std::abs(down) + std::log(sum));
      loss_bound += testing::gamma(static_cast<double>(tokens), DType::F64) * (std::log(sum) - down);
    }
    for (const Part& p : parts) {
      const int64_t width = tokens ? p.logits.size() / tokens : 0;
      for (int64_t j = 0; j < width; ++j) {
        const int64_t v = p.first_column + j;
        const bool hit = target[t] == v;
        const double softmax = std::exp(whole[t * columns + v] - most) / sum;
        const double exact = target[t] < 0 ? 0 : scale * (softmax - (hit ? 1 : 0));
        const double magnitude = target[t] < 0 ? 0 : scale * (softmax + (hit ? 1 : 0));
        ASSERT_NEAR(p.dlogits[t * width + j], exact, testing::tolerance(dtype, gradient, 2 * roundings + 5, magnitude))
            << "token " << t << " column " << v;
        if (target[t] < 0) {
          ASSERT_EQ(p.dlogits[t * width + j], 0);
        }
      }
    }
  }
  EXPECT_NEAR(loss, exact_loss, loss_bound);
}

TEST(CrossEntropy, MatchesTheFormulaHoweverTheVocabularyIsSplit) {
  for (const DType dtype : kLogitDTypes) {
    check(0, 5, {5}, dtype, dtype);
    check(1, 1, {1}, dtype, dtype);
    check(7, 33, {33}, dtype, dtype);
    check(7, 33, {10, 21, 33}, dtype, dtype);
    check(5, 64, {0, 64, 64}, dtype, dtype);  // ranks that hold no columns
    check(40, 1000, {500, 1000}, dtype, dtype);
  }
  check(40, 1000, {333, 1000}, DType::F32, DType::BF16);
}

TEST(CrossEntropy, MaximumOfNoColumnsIsMinusInfinityAndSumsAreZero) {
  Context context(testing::on_device({}));
  Operand logits({3, 0}, DType::F32), maximum({3}, DType::F32), sums({2, 3}, DType::F32);
  const std::vector<int32_t> target = {0, 1, -1};
  cross_entropy_maximum(context, logits.tensor(), maximum.tensor());
  for (int t = 0; t < 3; ++t) EXPECT_EQ(maximum[t], -std::numeric_limits<double>::infinity());
  for (int t = 0; t < 3; ++t) maximum.set(t, 2);
  cross_entropy_sums(context, logits.tensor(), target, 0, maximum.tensor(), sums.tensor());
  for (int i = 0; i < 6; ++i) EXPECT_EQ(sums[i], 0);
}

TEST(CrossEntropy, LargeLogitsNeitherOverflowNorVanish) {
  Context context(testing::on_device({}));
  for (const DType dtype : kLogitDTypes) {
    Operand whole({1, 3}, dtype);
    whole.set(0, 30000);
    whole.set(1, 29999);
    whole.set(2, -30000);
    std::vector<Part> parts;
    parts.emplace_back(whole, 3, 0, 3, dtype);
    const std::vector<int32_t> target = {2};
    EXPECT_NEAR(run(context, parts, target, 1), 60000 + std::log1p(std::exp(-1.0)),
                testing::tolerance(dtype, 3, 60001));
    EXPECT_EQ(parts[0].dlogits[2], -1);
  }
}

TEST(CrossEntropy, NaNReachesTheLoss) {
  Context context(testing::on_device({}));
  for (const DType dtype : kLogitDTypes) {
    Operand whole = Operand::random({1, 40}, dtype, "logits");
    whole.set(17, std::nan(""));
    std::vector<Part> parts;
    parts.emplace_back(whole, 40, 0, 40, dtype);
    const std::vector<int32_t> target = {2};
    EXPECT_TRUE(std::isnan(run(context, parts, target, 1)));
  }
}

TEST(CrossEntropy, GradientMatchesCentralDifferences) {
  Context context(testing::on_device({}));
  Operand logits = Operand::random({4, 6}, DType::F64, "logits");
  const std::vector<int32_t> target = {3, -1, 0, 5};
  const auto loss = [&] {
    std::vector<Part> parts;
    parts.emplace_back(logits, 6, 0, 6, DType::F64);
    const double value = run(context, parts, target, 1);
    return testing::Scalar{.value = value, .magnitude = std::abs(value) + 24, .roundings = 24};
  };
  std::vector<Part> parts;
  parts.emplace_back(logits, 6, 0, 6, DType::F64);
  run(context, parts, target, 1);
  testing::expect_gradient(logits, parts[0].dlogits, loss, "logits");
}

TEST(CrossEntropy, GradientMayOverwriteTheLogits) {
  for (const DType dtype : kLogitDTypes) {
    Context context(testing::on_device({.threads = 2}));
    const Operand whole = Operand::random({30, 555}, dtype, "logits");
    const std::vector<int32_t> target = targets(30, 555);
    std::vector<Part> parts;
    parts.emplace_back(whole, 555, 0, 555, dtype);
    run(context, parts, target, 0.5);
    Operand over = parts[0].logits;
    cross_entropy_backward(context, over.tensor(), target, 0, parts[0].maximum.tensor(), parts[0].sums.tensor(), 0.5,
                           over.tensor());
    EXPECT_EQ(over.bytes(), parts[0].dlogits.bytes());
  }
}

TEST(CrossEntropy, ThreadsChangeNoBit) {
  for (const DType dtype : kLogitDTypes) {
    testing::expect_same_bits(name(dtype), 0, [&](Context& context) {
      const Operand whole = Operand::random({67, 999}, dtype, "logits");
      std::vector<Part> parts;
      parts.emplace_back(whole, 999, 0, 999, dtype);
      Operand loss({1}, DType::F64);
      loss.set(0, run(context, parts, targets(67, 999), 1));
      return testing::joined({&parts[0].maximum, &parts[0].sums, &parts[0].dlogits, &loss});
    });
  }
}

TEST(CrossEntropy, WrongOperandsThrow) {
  Context context(testing::on_device({}));
  Operand logits({2, 4}, DType::F32), low({2, 4}, DType::BF16), maximum({2}, DType::F32), sums({2, 2}, DType::F32);
  const std::vector<int32_t> one = {0}, two = {0, 1};
  EXPECT_THROW(cross_entropy_maximum(context, low.tensor(), maximum.tensor()), InternalError);
  EXPECT_THROW(cross_entropy_sums(context, logits.tensor(), one, 0, maximum.tensor(), sums.tensor()), InternalError);
  const Tensor over(logits.tensor().data(), {2, 4}, DType::BF16);
  EXPECT_THROW(cross_entropy_backward(context, logits.tensor(), two, 0, maximum.tensor(), sums.tensor(), 1, over),
               InternalError);
}

}  // namespace
}  // namespace tessera
