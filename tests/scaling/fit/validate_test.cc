#include "scaling/fit/validate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "scaling/law/forms.h"
#include "tensor/check.h"
#include "tests/scaling/ladder.h"

namespace tessera {
namespace {

const std::vector<double> kValues = {1.69, 406.4, 410.7, 0.34, 0.28};

TEST(Validate, LeavesOutTheLargestAndPredictsThem) {
  const auto form = make_form("chinchilla");
  const Theta truth = form->theta(kValues);
  const auto clean = testing::ladder(*form, truth, {});
  const HeldOut exact = leave_largest_out(*form, clean, 0.2);
  ASSERT_EQ(exact.rows.size(), 12u);
  EXPECT_LT(exact.largest, 1e-7);
  EXPECT_GT(exact.compute_ratio, 2);
  double least_held = INFINITY, most_seen = 0;
  for (size_t i = 0; i < clean.size(); ++i) {
    const double c = clean[i].parameters * clean[i].tokens;
    const bool held = std::find(exact.rows.begin(), exact.rows.end(), i) != exact.rows.end();
    if (held)
      least_held = std::min(least_held, c);
    else
      most_seen = std::max(most_seen, c);
  }
  EXPECT_GT(least_held, most_seen);
  // The wrong law shows: Kaplan's has no irreducible loss.
  EXPECT_GT(leave_largest_out(*make_form("kaplan"), clean, 0.2).mean_absolute, 1e-3);
}

TEST(Validate, ConstantsThatNoRunSpeaksOfAreNamed) {
  const auto form = make_form("muennighoff");
  const Theta theta = form->theta(std::vector<double>{1.87, 521, 1488, 0.353, 0.353, 5.3, 15.4});
  EXPECT_EQ(undetermined(*form, testing::ladder(*form, theta, {.fewest = 40}), theta),
            (std::vector<std::string>{"r_N", "r_D"}));
  EXPECT_TRUE(undetermined(*form, testing::ladder(*form, theta, {.repeated = true}), theta).empty());
}

TEST(Validate, FoldsPredictEachRunOnce) {
  const auto form = make_form("chinchilla");
  const auto samples = testing::ladder(*form, form->theta(kValues), {.noise = 0.005});
  HeldOut folds = k_fold(*form, samples);
  std::sort(folds.rows.begin(), folds.rows.end());
  ASSERT_EQ(folds.rows.size(), samples.size());
  for (size_t i = 0; i < samples.size(); ++i) EXPECT_EQ(folds.rows[i], i);
  // Mean |error| of a normal is 0.8 deviations; the fit adds a little.
  EXPECT_GT(folds.mean_absolute, 0.003);
  EXPECT_LT(folds.mean_absolute, 0.006);
}

TEST(Validate, AkaikePrefersTheLawThatMadeTheData) {
  const auto chinchilla = make_form("chinchilla"), kaplan = make_form("kaplan"), coupled = make_form("coupled");
  const auto score = [](const Form& form, const std::vector<Sample>& samples) {
    return corrected_akaike(form, samples, fit(form, samples).theta);
  };
  const auto simple = testing::ladder(*chinchilla, chinchilla->theta(kValues), {.noise = 0.002});
  EXPECT_LT(score(*chinchilla, simple), score(*kaplan, simple));
  const auto rich = testing::ladder(*coupled, coupled->theta(std::vector<double>{1.69, 1500, 3000, 0.6, 0.55, 0.45}),
                                    {.noise = 0.0005});
  EXPECT_LT(score(*coupled, rich), score(*chinchilla, rich));
  const std::vector<Sample> few(simple.begin(), simple.begin() + 7);
  EXPECT_TRUE(std::isinf(corrected_akaike(*chinchilla, few, chinchilla->theta(kValues))));
}

TEST(Validate, InfluenceFindsTheRunThatBendsThePrediction) {
  const auto form = make_form("chinchilla");
  auto samples = testing::ladder(*form, form->theta(kValues), {.noise = 0.0005});
  samples[57] = Sample(samples[57].parameters, samples[57].tokens, samples[57].loss * 1.05);
  const FitOptions squares{.delta = kLeastSquares};
  const auto found = influence(*form, samples, fit(*form, samples, squares).theta, Sample(1e11, 2e12, 1), squares);
  ASSERT_EQ(found.size(), samples.size());
  double leverage = 0;
  size_t most = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    leverage += found[i].leverage;
    if (std::abs(found[i].shift) > std::abs(found[most].shift)) most = i;
  }
  EXPECT_EQ(most, 57u);
  EXPECT_GT(found[57].residual, 0.02);
  EXPECT_NEAR(leverage, 5, 1e-9);  // they sum to the number of constants
}

}  // namespace
}  // namespace tessera
