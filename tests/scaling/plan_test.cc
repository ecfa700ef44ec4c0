#include "scaling/plan.h"

#include <gtest/gtest.h>

#include <cmath>

#include "scaling/law/forms.h"
#include "tensor/check.h"
#include "tests/scaling/ladder.h"

namespace tessera {
namespace {

const std::vector<double> kValues = {1.69, 406.4, 410.7, 0.34, 0.28};

TEST(Plan, OptimumIsThatOfTheClosedForm) {
  // Hoffmann et al. 2022, equation 4: N = G (C / 6)^a, G = (alpha A / (beta B))^(1 / (alpha + beta)), a = beta / (alpha
  // + beta).
  const auto form = make_form("chinchilla");
  const Theta theta = form->theta(kValues);
  for (double flops : {1e18, 5.76e23, 1e26}) {
    const double n = std::pow(0.34 * 406.4 / (0.28 * 410.7), 1 / 0.62) * std::pow(flops / 6, 0.28 / 0.62);
    const Allocation best = compute_optimal(*form, theta, flops);
    EXPECT_NEAR(best.parameters / n, 1, 1e-6);
    EXPECT_NEAR(6 * best.parameters * best.tokens / flops, 1, 1e-12);
    EXPECT_NEAR(best.loss, form->loss(Sample(n, flops / (6 * n), 1), theta), 1e-12);
  }
}

TEST(Plan, FlopsForALossInvertTheOptimum) {
  const auto form = make_form("chinchilla");
  const Theta theta = form->theta(kValues);
  const double loss = compute_optimal(*form, theta, 1e22).loss;
  EXPECT_NEAR(flops_for_loss(*form, theta, loss) / 1e22, 1, 1e-6);
  EXPECT_TRUE(std::isnan(flops_for_loss(*form, theta, 1.6)));  // below the irreducible loss
}

TEST(Plan, SmallerModelsReachTheSameLossWithMoreCompute) {
  const auto form = make_form("chinchilla");
  const Theta theta = form->theta(kValues);
  const double shares[] = {1.0, 0.5, 0.25, 0.01};
  const Allocation best = compute_optimal(*form, theta, 1e22);
  const auto rows = over_training(*form, theta, 1e22, shares);
  EXPECT_NEAR(rows[0].flops_for_same_loss / 1e22, 1, 1e-4);
  for (size_t i = 1; i < 3; ++i) {
    EXPECT_GT(rows[i].same_flops.loss, rows[i - 1].same_flops.loss);
    EXPECT_GT(rows[i].flops_for_same_loss, rows[i - 1].flops_for_same_loss);
    const Sample longer(shares[i] * best.parameters, rows[i].tokens_for_same_loss, 1);
    EXPECT_NEAR(form->loss(longer, theta), best.loss, 1e-9);
  }
  EXPECT_TRUE(std::isnan(rows[3].flops_for_same_loss));  // no number of tokens makes up for the size
}

TEST(Plan, IntervalsHoldTheTruthAndWidenWithTheBudget) {
  const auto form = make_form("chinchilla");
  const Theta truth = form->theta(kValues);
  const auto samples = testing::ladder(*form, truth, {.noise = 0.003, .seed = 8});
  const Bootstrap made = bootstrap(*form, samples, fit(*form, samples), {.replicates = 199});
  double before = 0;
  for (double flops : {1e21, 1e23, 1e25}) {
    const OptimalPlan plan = plan_for_flops(*form, samples, made, flops, 0.99);
    const Allocation best = compute_optimal(*form, truth, flops);
    EXPECT_LT(plan.parameters.low, best.parameters);
    EXPECT_GT(plan.parameters.high, best.parameters);
    EXPECT_LT(plan.tokens.low, best.tokens);
    EXPECT_GT(plan.tokens.high, best.tokens);
    EXPECT_LT(plan.loss.low, best.loss);
    EXPECT_GT(plan.loss.high, best.loss);
    EXPECT_LT(plan.run_loss.low, plan.loss.value);
    const double width = std::log(plan.parameters.high / plan.parameters.low);
    EXPECT_GT(width, before);
    before = width;
    EXPECT_NEAR(plan.extrapolation, flops / (6 * 3e9 * 3e9 * 320), 1e-6 * plan.extrapolation);
  }
}

TEST(Plan, TheNextRunNarrowsTheIntervalAsMuchAsItSays) {
  const auto form = make_form("chinchilla");
  const Theta truth = form->theta(kValues);
  auto samples = testing::ladder(*form, truth, {.sizes = 6, .ratios = 4, .noise = 0.003, .seed = 8});
  const Sample target(1e11, 2e12, 1);
  const double most = 6 * 3e9 * 3e9 * 320;
  const NextRun next = next_run(*form, samples, truth, target, most);
  EXPECT_LE(next.flops, most);
  EXPECT_LT(next.width_left, 1);
  EXPECT_NEAR(next.flops, 6 * next.parameters * next.tokens, 1e-6 * next.flops);
  // Measured: the width with that run added, by bootstrap over least squares, whose variance the linearised law states.
  const FitOptions squares{.delta = kLeastSquares};
  const auto width = [&] {
    double mean = 0;
    for (uint64_t seed = 0; seed < 4; ++seed) {
      // The noise of the design, not of one draw: the same errors throughout.
      const Bootstrap made =
          bootstrap(*form, samples, fit(*form, samples, squares), {.replicates = 499, .seed = seed, .fit = squares});
      const Estimate at = made.interval([&](auto theta) { return form->log_loss(target, theta, {}); }, 0.9);
      mean += (at.high - at.low) / 4;
    }
    return mean;
  };
  const double before = width();
  samples.emplace_back(next.parameters, next.tokens,
                       form->loss(Sample(next.parameters, next.tokens, 1), fit(*form, samples, squares).theta));
  EXPECT_NEAR(width() / before, next.width_left, 0.12);
  EXPECT_THROW(next_run(*form, samples, truth, target, 1e10), UsageError);
}

TEST(Plan, DurationIsComputeOverWhatDevicesReach) {
  const Duration time = duration_of(1e24, 1e11, 1024, 1e15, [](double, double) { return 0.5; });
  EXPECT_NEAR(time.device_hours, 1e24 / 5e14 / 3600, 1e-3);
  EXPECT_NEAR(time.days, time.device_hours / 1024 / 24, 1e-9);
}

}  // namespace
}  // namespace tessera
