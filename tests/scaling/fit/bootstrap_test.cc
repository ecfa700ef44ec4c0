#include "scaling/fit/bootstrap.h"

#include <gtest/gtest.h>

#include <cmath>

#include "scaling/fit/quantile.h"
#include "scaling/law/forms.h"
#include "tests/scaling/fit/coverage.h"

namespace tessera {
namespace {

const std::vector<double> kValues = {1.69, 406.4, 410.7, 0.34, 0.28};

// Of a true 90 % interval the count is binomial. Over 6 numbers the bounds leave out under 1e-3 in all.
TEST(Bootstrap, IntervalsHoldTheTruthAsOftenAsTheySay) {
  const auto form = make_form("chinchilla");
  for (double delta : {kHuberDelta, kLeastSquares}) {
    const testing::Coverage found =
        testing::coverage(*form, kValues, {.noise = 0.005}, 100, 199, delta, delta == kHuberDelta ? 5000 : 9000);
    for (size_t k = 0; k < found.held.size(); ++k) {
      EXPECT_GT(binomial_below(found.held[k], found.sets, 0.9), 1e-4) << found.names[k] << " " << found.held[k];
      EXPECT_LT(binomial_below(found.held[k] - 1, found.sets, 0.9), 1 - 1e-4) << found.names[k] << " " << found.held[k];
    }
  }
}

Bootstrap make(const Form& form, const std::vector<Sample>& samples, int replicates = 399) {
  return bootstrap(form, samples, fit(form, samples), {.replicates = replicates});
}

TEST(Bootstrap, IntervalsWidenWithExtrapolation) {
  const auto form = make_form("chinchilla");
  const auto samples = testing::ladder(*form, form->theta(kValues), {.noise = 0.005});
  const Bootstrap made = make(*form, samples);
  double before = 0;
  for (double scale : {1.0, 10.0, 100.0, 1000.0}) {
    const Sample at(3e9 * scale, 6e10 * scale, 1);
    const Estimate law = made.interval([&](auto theta) { return form->log_loss(at, theta, {}); }, 0.9);
    EXPECT_LT(law.low, law.value);
    EXPECT_LT(law.value, law.high);
    EXPECT_GT(law.high - law.low, before);
    before = law.high - law.low;
    const Estimate run = made.run_interval(*form, at, 0.9);
    EXPECT_GT(std::log(run.high / run.low), before);
  }
}

TEST(Bootstrap, RunIntervalsHoldNewRuns) {
  const auto form = make_form("chinchilla");
  const Theta truth = form->theta(kValues);
  const RandomStream random(1, "new runs");
  int held = 0;
  constexpr int kSets = 100;
  for (int set = 0; set < kSets; ++set) {
    const auto samples = testing::ladder(*form, truth, {.noise = 0.005, .seed = 300 + static_cast<uint64_t>(set)});
    const Sample at(6e9, 3e11, 1);
    const double measured = form->loss(at, truth) * std::exp(0.005 * random.normal(static_cast<uint64_t>(set)));
    const Estimate run = make(*form, samples, 199).run_interval(*form, at, 0.9);
    held += run.low <= measured && measured <= run.high;
  }
  EXPECT_GT(binomial_below(held, kSets, 0.9), 1e-4) << held;
  EXPECT_LT(binomial_below(held - 1, kSets, 0.9), 1 - 1e-4) << held;
}

TEST(Bootstrap, SeedsOfOneCellAreNotTakenForIndependentRuns) {
  // Four seeds a cell that err together: as sure as one seed a cell, not twice as sure.
  const auto form = make_form("chinchilla");
  const auto one = testing::ladder(*form, form->theta(kValues), {.noise = 0.005});
  std::vector<Sample> four;
  const RandomStream random(2, "seeds");
  for (const Sample& sample : one)
    for (int seed = 0; seed < 4; ++seed)
      four.emplace_back(sample.parameters, sample.tokens, sample.loss * std::exp(1e-5 * random.normal(four.size())));
  const auto width = [&](const std::vector<Sample>& samples) {
    const Estimate interval = make(*form, samples).interval([](auto theta) { return theta[3]; }, 0.9);
    return interval.high - interval.low;
  };
  const double ratio = width(four) / width(one);
  EXPECT_GT(ratio, 0.8);
  EXPECT_LT(ratio, 1.25);
}

TEST(Bootstrap, CleanDataLeaveNothingOpenAndSeedsRepeat) {
  const auto form = make_form("chinchilla");
  const auto clean = testing::ladder(*form, form->theta(kValues), {});
  const Estimate e = make(*form, clean, 99).interval([](auto theta) { return theta[0]; }, 0.9);
  EXPECT_LT(e.high - e.low, 1e-8);
  const auto noisy = testing::ladder(*form, form->theta(kValues), {.noise = 0.005});
  EXPECT_EQ(make(*form, noisy, 20).replicates, make(*form, noisy, 20).replicates);
}

}  // namespace
}  // namespace tessera
