#include "scaling/law/isoflop.h"

#include <gtest/gtest.h>

#include <cmath>

#include "scaling/law/forms.h"
#include "tensor/check.h"

namespace tessera {
namespace {

std::vector<Sample> grid(double low, double high, const std::vector<double>& budgets) {
  const auto form = make_form("chinchilla");
  const Theta theta = form->theta(std::vector<double>{1.69, 406.4, 410.7, 0.34, 0.28});
  std::vector<Sample> samples;
  for (double c : budgets) {
    // The optimum of the law itself: dL = 0 along N D = C / 6.
    const double best = std::pow(0.34 * 406.4 / (0.28 * 410.7) * std::pow(c / 6, 0.28), 1 / 0.62);
    for (int i = 0; i < 7; ++i) {
      const double n = best * std::exp(low + (high - low) * i / 6);
      samples.emplace_back(n, c / (6 * n), form->loss(Sample(n, c / (6 * n), 1), theta));
    }
  }
  return samples;
}

TEST(IsoFlop, FindsTheOptimumOfNarrowCurvesButNotOfWideOnes) {
  const std::vector<double> budgets = {1e18, 1e19, 1e20, 1e21};
  const double truth = 0.28 / 0.62;
  // Narrow curves are nearly parabolas, wide ones that sit off-centre are not: the bias that the warning tells of.
  const auto exponent = [&](const std::vector<Sample>& samples) {
    return isoflop_law(isoflop_curves(samples)).parameters.exponent(0, 0.9).value;
  };
  EXPECT_NEAR(exponent(grid(-0.2, 0.2, budgets)), truth, 1e-4);
  std::vector<Sample> drifting;
  for (size_t i = 0; i < budgets.size(); ++i) {
    const double shift = 0.5 * static_cast<double>(i);
    for (const Sample& sample : grid(-2.5 + shift, 2.0 + shift, {budgets[i]})) drifting.push_back(sample);
  }
  EXPECT_GT(std::abs(exponent(drifting) - truth), 1e-3);
}

TEST(IsoFlop, NamesTheBudgetsThatDoNotServe) {
  std::vector<Sample> samples = grid(0.5, 2.0, {1e18});
  samples.emplace_back(1e9, 1e12, 2.0);
  try {
    isoflop_curves(samples);
    FAIL();
  } catch (const DataError& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find("1e+18 FLOPs: the lowest loss is at the edge of the 7 sizes tried"), std::string::npos)
        << message;
    EXPECT_NE(message.find("6e+21 FLOPs: 1 size, a parabola takes 3"), std::string::npos) << message;
  }
}

}  // namespace
}  // namespace tessera
