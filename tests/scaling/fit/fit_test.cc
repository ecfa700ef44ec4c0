#include "scaling/fit/fit.h"

#include <gtest/gtest.h>

#include <cmath>

#include "scaling/fit/projection.h"
#include "scaling/law/forms.h"
#include "tensor/check.h"
#include "tests/scaling/ladder.h"

namespace tessera {
namespace {

struct Case {
  std::string form;
  std::vector<double> values;
};

const std::vector<Case> kCases = {
    {"chinchilla", {1.69, 406.4, 410.7, 0.34, 0.28}}, {"chinchilla", {1.82, 482.0, 2085.4, 0.3478, 0.3658}},
    {"chinchilla", {2.2, 30.0, 9000.0, 0.21, 0.45}},  {"coupled", {1.69, 1500, 3000, 0.42, 0.4, 0.8}},
    {"coupled", {1.9, 90, 60, 0.25, 0.2, 1.4}},       {"kaplan", {6.4e13, 1.8e13, 0.076, 0.103}},
    {"gadre", {1.837, 212.2, 468.3, 0.13645}},        {"muennighoff", {1.87, 521, 1488, 0.353, 0.353, 5.3, 15.4}},
};

TEST(Fit, RecoversCleanDataOfEveryForm) {
  for (const Case& known : kCases) {
    const auto form = make_form(known.form);
    const auto samples = testing::ladder(*form, form->theta(known.values), {.repeated = known.form == "muennighoff"});
    const Fit found = fit(*form, samples);
    EXPECT_TRUE(found.converged);
    const auto values = form->values(found.theta);
    for (size_t k = 0; k < values.size(); ++k)
      EXPECT_NEAR(values[k] / known.values[k], 1, 1e-5) << known.form << " " << form->constants()[k].name;
  }
}

TEST(Fit, ProjectionRecoversCleanDataOfSeparableForms) {
  for (const Case& known : kCases) {
    const auto form = make_form(known.form);
    const auto* separable = dynamic_cast<const SeparableForm*>(form.get());
    if (separable == nullptr) continue;
    const auto samples = testing::ladder(*form, form->theta(known.values), {.repeated = known.form == "muennighoff"});
    for (const auto error : {ProjectionError::Relative, ProjectionError::Absolute}) {
      const auto values = form->values(fit_by_projection(*separable, samples, error).theta);
      for (size_t k = 0; k < values.size(); ++k)
        EXPECT_NEAR(values[k] / known.values[k], 1, 1e-5) << known.form << " " << form->constants()[k].name;
    }
  }
}

TEST(Fit, ObjectiveIsTheSumOfHubersLossAtTheMinimum) {
  const auto form = make_form("chinchilla");
  const auto samples = testing::ladder(*form, form->theta(kCases[0].values), {.noise = 0.005, .seed = 3});
  const Fit found = fit(*form, samples);
  double sum = 0;
  for (const Sample& sample : samples) {
    const double r = std::abs(sample.log_loss - std::log(form->loss(sample, found.theta)));
    sum += r <= 1e-3 ? r * r / 2 : 1e-3 * (r - 0.5e-3);
  }
  EXPECT_NEAR(found.objective, sum, 1e-12 * sum);
  // No neighbour is lower.
  const Regression rows = regression(*form, samples);
  for (size_t k = 0; k < found.theta.size(); ++k) {
    for (double step : {-1e-4, 1e-4}) {
      Theta moved = found.theta;
      moved[k] += step;
      EXPECT_GT(rows.objective(moved, {}), found.objective);
    }
  }
}

TEST(Fit, OutliersMoveHubersFitLessThanLeastSquares) {
  const auto form = make_form("chinchilla");
  const Theta truth = form->theta(kCases[0].values);
  auto samples = testing::ladder(*form, truth, {.noise = 0.001, .seed = 5});
  for (size_t i = 0; i < samples.size(); i += 12)
    samples[i] = Sample(samples[i].parameters, samples[i].tokens, samples[i].loss * 1.1);
  const Sample far(1e12, 2e13, 1);
  const double expected = form->log_loss(far, truth, {});
  const double robust = form->log_loss(far, fit(*form, samples).theta, {});
  const double plain = form->log_loss(far, fit(*form, samples, {.delta = kLeastSquares}).theta, {});
  EXPECT_LT(std::abs(robust - expected), 0.2 * std::abs(plain - expected));
}

TEST(Fit, TooFewRunsAreToldWithTheFormAndItsNeed) {
  const auto form = make_form("chinchilla");
  auto samples = testing::ladder(*form, form->theta(kCases[0].values), {});
  samples.erase(samples.begin() + 4, samples.end());
  try {
    fit(*form, samples);
    FAIL();
  } catch (const DataError& error) {
    EXPECT_NE(std::string(error.what()).find("4 runs: the form chinchilla has 5 constants"), std::string::npos);
  }
}

}  // namespace
}  // namespace tessera
