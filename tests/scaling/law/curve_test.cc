#include "scaling/law/curve.h"

#include <gtest/gtest.h>

#include <cmath>

#include "scaling/law/multi_power.h"
#include "scaling/law/tissue.h"
#include "tensor/check.h"
#include "tests/scaling/law/gradient.h"

namespace tessera {
namespace {

enum class Shape { Constant, Cosine, Wsd };

LossCurve schedule(Shape shape, size_t steps, double peak) {
  LossCurve curve;
  curve.warmup_steps = steps / 20;
  for (size_t i = 1; i <= steps; ++i) {
    const double share = static_cast<double>(i) / static_cast<double>(steps);
    double eta = peak;
    if (i <= curve.warmup_steps)
      eta *= static_cast<double>(i) / static_cast<double>(curve.warmup_steps);
    else if (shape == Shape::Cosine)
      eta *= 0.1 + 0.45 * (1 + std::cos(3.141592653589793 * share));
    else if (shape == Shape::Wsd && share > 0.8)
      eta *= 1 - 0.9 * (share - 0.8) / 0.2;
    curve.learning_rates.push_back(eta);
    if (i > curve.warmup_steps && i % (steps / 40) == 0) curve.steps.push_back(i);
  }
  return curve;
}

template <class Law>
void fill_losses(std::vector<LossCurve>& curves, const Theta& theta) {
  const Law law(curves);
  size_t row = 0;
  for (LossCurve& curve : curves)
    for (size_t i = 0; i < curve.steps.size(); ++i) curve.losses.push_back(std::exp(law.log_loss(row++, theta, {})));
}

const Theta kTissue = {std::log(2.6), std::log(0.5), std::log(2.0), 0.5};
const Theta kMultiPower = {std::log(2.7), std::log(0.6), std::log(300.0), 0.45, std::log(2.0), std::log(0.6), 0.6};

TEST(CurveLaw, GradientsAreTheSlopes) {
  const std::vector<LossCurve> curves = {schedule(Shape::Cosine, 400, 1e-3), schedule(Shape::Wsd, 400, 6e-4)};
  const Tissue tissue(curves);
  const MultiPower multi_power(curves);
  for (size_t row : {size_t{0}, size_t{20}, tissue.rows() - 1}) {
    testing::expect_slopes([&](auto at, auto gradient) { return tissue.log_loss(row, at, gradient); }, kTissue,
                           "tissue");
    testing::expect_slopes([&](auto at, auto gradient) { return multi_power.log_loss(row, at, gradient); }, kMultiPower,
                           "multi-power");
  }
  // Where the law goes below zero, value and slope go on together.
  const Theta absurd = {std::log(0.1), std::log(0.01), std::log(50.0), 0.5};
  testing::expect_slopes(
      [&](auto at, auto gradient) {
        const double value = tissue.log_loss(tissue.rows() - 1, at, gradient) / 1e6;
        for (double& slope : gradient) slope /= 1e6;
        return value;
      },
      absurd, "below 0");
}

TEST(CurveLaw, TissueIsTheDoubleSumOfThePaper) {
  std::vector<LossCurve> curves = {schedule(Shape::Wsd, 200, 1e-3)};
  const LossCurve& curve = curves[0];
  const Tissue law(curves, 0.99);
  for (size_t row = 0; row < curve.steps.size(); ++row) {
    double s1 = 0, s2 = 0;
    for (size_t i = 1; i <= curve.steps[row]; ++i) {
      s1 += curve.learning_rates[i - 1];
      for (size_t k = curve.warmup_steps + 2; k <= i; ++k)
        s2 += (curve.learning_rates[k - 2] - curve.learning_rates[k - 1]) * std::pow(0.99, static_cast<double>(i - k));
    }
    EXPECT_NEAR(std::exp(law.log_loss(row, kTissue, {})), 2.6 + 0.5 * std::pow(s1, -0.5) - 2.0 * s2, 1e-11);
  }
}

TEST(CurveLaw, MultiPowerIsTheSumOfThePaper) {
  std::vector<LossCurve> curves = {schedule(Shape::Constant, 100, 1e-3), schedule(Shape::Cosine, 200, 1e-3)};
  const LossCurve& curve = curves[1];
  const MultiPower law(curves);
  for (size_t i = 0; i < curve.steps.size(); ++i) {
    double s1 = 0, sum = 0;
    const size_t t = curve.steps[i];
    for (size_t k = 1; k <= t; ++k) s1 += curve.learning_rates[k - 1];
    for (size_t k = curve.warmup_steps + 2; k <= t; ++k) {
      double since = 0;
      for (size_t j = k; j <= t; ++j) since += curve.learning_rates[j - 1];
      const double eta = curve.learning_rates[k - 1];
      sum += (eta - curve.learning_rates[k - 2]) * (1 - std::pow(1 + 2.0 * std::pow(eta, -0.6) * since, -0.6));
    }
    EXPECT_NEAR(std::exp(law.log_loss(curves[0].steps.size() + i, kMultiPower, {})),
                2.7 + 0.6 * std::pow(s1, -0.45) + 300 * sum, 1e-11);
  }
}

template <class Law>
void expect_recovered(const Theta& theta) {
  std::vector<LossCurve> curves = {schedule(Shape::Constant, 800, 1e-3), schedule(Shape::Cosine, 600, 1e-3),
                                   schedule(Shape::Wsd, 400, 2e-3)};
  fill_losses<Law>(curves, theta);
  const Law law(curves);
  const Fit found = fit(law);
  for (size_t k = 0; k < theta.size(); ++k)
    EXPECT_NEAR(found.theta[k], theta[k], 1e-5) << law.name() << " " << law.constants()[k].name;
}

TEST(CurveLaw, TissueRecoversCleanCurves) { expect_recovered<Tissue>(kTissue); }
TEST(CurveLaw, MultiPowerRecoversCleanCurves) { expect_recovered<MultiPower>(kMultiPower); }

TEST(CurveLaw, PredictsAScheduleThatItHasNotSeen) {
  // Fitted on a constant and a cosine, the law gives the decay of a WSD run.
  std::vector<LossCurve> seen = {schedule(Shape::Constant, 800, 1e-3), schedule(Shape::Cosine, 600, 1e-3)};
  fill_losses<MultiPower>(seen, kMultiPower);
  const std::vector<LossCurve> unseen = {schedule(Shape::Wsd, 800, 1e-3)};
  const MultiPower fitted(seen), asked(unseen);
  const Theta theta = fit(fitted).theta;
  for (size_t row = 0; row < asked.rows(); ++row)
    EXPECT_NEAR(asked.log_loss(row, theta, {}), asked.log_loss(row, kMultiPower, {}), 1e-6);
}

TEST(CurveLaw, RefusesStepsAndLossesThatCannotBe) {
  std::vector<LossCurve> curves = {schedule(Shape::Constant, 100, 1e-3)};
  curves[0].steps = {101};
  EXPECT_THROW(Tissue{curves}, DataError);
  curves[0].steps = {50};
  curves[0].losses = {std::nan("")};
  EXPECT_THROW(Tissue{curves}, DataError);
  curves[0].losses = {3};
  EXPECT_THROW(fit(Tissue(curves)), DataError);  // one point, four constants
}

}  // namespace
}  // namespace tessera
