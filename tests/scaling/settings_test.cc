#include "scaling/settings.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tensor/check.h"

namespace tessera {
namespace {

// Losses that are parabolas in log learning rate, lowest at 0.3 N^-0.5 D^-0.25.
double best_rate(double n, double d) { return 0.3 * std::pow(n, -0.5) * std::pow(d, -0.25); }

std::vector<Run> grid(double off) {
  std::vector<Run> runs;
  for (const double n : {1e4, 4e4, 1.6e5}) {
    for (const double d : {1e6, 8e6}) {
      for (int i = -2; i <= 2; ++i) {
        Run run;
        run.parameters = n;
        run.tokens = d * (1 + 0.001 * i);  // as steps of other lengths make of a budget
        run.learning_rate = best_rate(n, d) * std::pow(2, i + off);
        run.loss = 3 + 0.1 * std::pow(std::log(run.learning_rate / best_rate(n, d)), 2);
        runs.push_back(run);
      }
    }
  }
  return runs;
}

TEST(Settings, TheBestLiesBetweenTheValuesTried) {
  for (const BestSetting& best : best_settings(grid(0.3), &tessera::Run::learning_rate)) {
    EXPECT_TRUE(best.inside);
    EXPECT_EQ(best.tried, 5);
    EXPECT_NEAR(best.value / best_rate(best.parameters, best.tokens), 1, 1e-3);
    EXPECT_NEAR(best.loss, 3, 1e-6);
  }
  EXPECT_EQ(best_settings(grid(0.3), &tessera::Run::learning_rate).size(), 6u);
}

TEST(Settings, TheLawIsRecovered) {
  const PowerLaw law = settings_law(best_settings(grid(0.3), &tessera::Run::learning_rate));
  EXPECT_NEAR(law.exponent(0, 0.9).value, -0.5, 1e-3);
  EXPECT_NEAR(law.exponent(1, 0.9).value, -0.25, 1e-3);
  EXPECT_NEAR(law.mean_at(settings_at(law, 1e6, 1e8), 0.9).value, best_rate(1e6, 1e8), 1e-2 * best_rate(1e6, 1e8));
}

TEST(Settings, WhatLiesAtTheEdgeDoesNotCount) {
  const auto best = best_settings(grid(5), &tessera::Run::learning_rate);
  for (const BestSetting& one : best) EXPECT_FALSE(one.inside);
  EXPECT_THROW(settings_law(best), DataError);
  EXPECT_TRUE(best_settings(grid(0), &tessera::Run::batch_tokens).empty()) << "no run states one";
}

TEST(Settings, OfOneBudgetTheLawIsOfTheSizeAlone) {
  std::vector<tessera::Run> runs = grid(0.3);
  std::erase_if(runs, [](const tessera::Run& run) { return run.tokens > 2e6; });
  const PowerLaw law = settings_law(best_settings(runs, &tessera::Run::learning_rate));
  EXPECT_EQ(law.names(), std::vector<std::string>{"N"});
  EXPECT_NEAR(law.exponent(0, 0.9).value, -0.5, 1e-3);
}

}  // namespace
}  // namespace tessera
