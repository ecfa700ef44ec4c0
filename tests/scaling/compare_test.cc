#include "scaling/compare.h"

#include <gtest/gtest.h>

#include <cmath>

#include "scaling/law/forms.h"
#include "scaling/plan.h"
#include "tensor/check.h"
#include "tests/scaling/ladder.h"
#include "tests/scaling/law/gradient.h"

namespace tessera {
namespace {

const std::vector<double> kFirst = {1.69, 406.4, 410.7, 0.34, 0.28};
const std::vector<double> kSteeper = {1.69, 700.0, 700.0, 0.37, 0.305};  // worse when small, better when large

std::vector<Sample> both(const std::vector<double>& second, double noise, uint64_t seed = 1) {
  const auto form = make_form("chinchilla");
  auto samples = testing::ladder(*form, form->theta(kFirst), {.sizes = 8, .ratios = 4, .noise = noise, .seed = seed});
  for (Sample sample :
       testing::ladder(*form, form->theta(second), {.sizes = 8, .ratios = 4, .noise = noise, .seed = seed + 1000})) {
    sample.variant = 1;
    samples.push_back(sample);
  }
  return samples;
}

TEST(Compare, SharedFormHasOneIrreducibleLossAndRightGradients) {
  const auto form = make_form("chinchilla");
  const VariantForm shared(*form, {"a", "b"}, true), apart(*form, {"a", "b"}, false);
  EXPECT_EQ(shared.size(), 9u);
  EXPECT_EQ(apart.size(), 10u);
  EXPECT_EQ(shared.constants()[5].name, "A (b)");
  Sample sample(1e9, 2e10, 3);
  sample.variant = 1;
  const Theta theta = {0.5, 6, 6, 0.3, 0.3, 6.5, 6.2, 0.35, 0.31};
  testing::expect_slopes(
      [&](std::span<const double> at, std::span<double> gradient) { return shared.log_loss(sample, at, gradient); },
      theta, "shared");
  EXPECT_EQ(shared.of_variant(theta, 1), (Theta{0.5, 6.5, 6.2, 0.35, 0.31}));
}

TEST(Compare, GainIsTheComputeThatTheOtherWouldNeed) {
  // Factors lower by 8 %: worth the same at each scale up to the exponents, and no crossing.
  const auto form = make_form("chinchilla");
  const std::vector<double> better = {1.69, 0.92 * 406.4, 0.92 * 410.7, 0.34, 0.28};
  const auto samples = both(better, 0.0005);
  const double flops = 1e20;
  const Comparison found = compare_variants(*form, {"base", "better"}, samples, flops, 0.95, {.replicates = 199});
  EXPECT_TRUE(found.shared);
  // Compute-optimal reducible loss falls as C^-(alpha beta / (alpha + beta)) from the factors' weighted mean.
  const double expected = std::pow(1 / 0.92, 0.62 / (0.34 * 0.28));
  EXPECT_LT(found.gain.low, expected);
  EXPECT_GT(found.gain.high, expected);
  EXPECT_NEAR(found.gain.value / expected, 1, 0.2);
  EXPECT_GT(found.gain.low, 1);
}

TEST(Compare, FindsWhereTwoVariantsCross) {
  const auto form = make_form("chinchilla");
  const auto truth = [&](double flops) {
    return compute_optimal(*form, form->theta(kFirst), flops).loss -
           compute_optimal(*form, form->theta(kSteeper), flops).loss;
  };
  double low = 1e12, high = 1e30;
  ASSERT_LT(truth(low), 0);
  ASSERT_GT(truth(high), 0);
  while (high / low > 1.0001) {
    const double middle = std::sqrt(low * high);
    (truth(middle) < 0 ? low : high) = middle;
  }
  const Comparison found = compare_variants(*form, {"a", "b"}, both(kSteeper, 0.0005), 1e20, 0.95, {.replicates = 199});
  EXPECT_GT(found.crossing_share, 0.9);
  EXPECT_LT(found.crossing.low, low);
  EXPECT_GT(found.crossing.high, low);
}

TEST(Compare, IrreducibleLossesStayApartWhereTheDataAskForIt) {
  const auto form = make_form("chinchilla");
  const std::vector<double> other = {1.9, 406.4, 410.7, 0.34, 0.28};
  const Comparison found = compare_variants(*form, {"a", "b"}, both(other, 0.001), 1e20, 0.9, {.replicates = 99});
  EXPECT_FALSE(found.shared);
  EXPECT_LT(found.akaike_apart, found.akaike_shared);
  EXPECT_LT(found.gain.high, 1);  // the second is worse
}

TEST(Compare, AVariantWithTooFewRunsIsNamed) {
  const auto form = make_form("chinchilla");
  auto samples = both(kSteeper, 0.001);
  samples.erase(samples.begin() + 35, samples.end());  // three of the second
  try {
    compare_variants(*form, {"old", "new"}, samples, 1e20, 0.9);
    FAIL();
  } catch (const DataError& error) {
    EXPECT_NE(std::string(error.what()).find("variant new: form chinchilla: 3 runs"), std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace tessera
