#include "scaling/law/forms.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tensor/check.h"
#include "tests/scaling/law/gradient.h"

namespace tessera {
namespace {

struct Known {
  std::string form;
  std::vector<double> values;  // of the papers
};

const std::vector<Known> kKnown = {
    {"chinchilla", {1.69, 406.4, 410.7, 0.34, 0.28}},
    {"coupled", {1.69, 406.4, 410.7, 0.34, 0.28, 0.8}},
    {"kaplan", {6.4e13, 1.8e13, 0.076, 0.103}},
    {"gadre", {1.837, 212.2, 468.3, 0.13645}},
    {"muennighoff", {1.87, 521, 1488, 0.353, 0.353, 5.309743, 15.387756}},
};

TEST(Form, GradientsAreTheSlopesOfTheLaw) {
  for (const Known& known : kKnown) {
    const auto form = make_form(known.form);
    const Theta theta = form->theta(known.values);
    for (const Sample& sample : {Sample(1e7, 2e8, 4, 2e8), Sample(1e9, 1e11, 3, 2e9), Sample(7e10, 3e11, 2, 1e11)}) {
      testing::expect_slopes(
          [&](std::span<const double> at, std::span<double> gradient) { return form->log_loss(sample, at, gradient); },
          theta, known.form);
    }
  }
}

TEST(Form, ValuesAndThetaAreInverse) {
  for (const Known& known : kKnown) {
    const auto form = make_form(known.form);
    const auto back = form->values(form->theta(known.values));
    for (size_t k = 0; k < back.size(); ++k) EXPECT_NEAR(back[k] / known.values[k], 1, 1e-14);
  }
}

double loss_of(const std::string& name, const std::vector<double>& values, const Sample& sample) {
  const auto form = make_form(name);
  return form->loss(sample, form->theta(values));
}

TEST(Form, HasThePapersValues) {
  const Sample sample(7e10, 1.4e12, 1);
  EXPECT_NEAR(loss_of("chinchilla", kKnown[0].values, sample),
              1.69 + 406.4 / std::pow(7e10, 0.34) + 410.7 / std::pow(1.4e12, 0.28), 1e-13);
  EXPECT_NEAR(loss_of("coupled", kKnown[1].values, sample),
              1.69 + std::pow(406.4 / std::pow(7e10, 0.34) + 410.7 / std::pow(1.4e12, 0.28), 0.8), 1e-13);
  EXPECT_NEAR(loss_of("kaplan", kKnown[2].values, sample),
              std::pow(std::pow(6.4e13 / 7e10, 0.076 / 0.103) + 1.8e13 / 1.4e12, 0.103), 1e-12);
  const double c = 6 * 7e10 * 1.4e12, m = 20, eta = 0.13645;
  EXPECT_NEAR(loss_of("gadre", kKnown[3].values, sample),
              1.837 + (212.2 * std::pow(m, eta) + 468.3 * std::pow(m, -eta)) * std::pow(c, -eta), 1e-12);
}

TEST(Form, MuennighoffSaturatesWithRepetition) {
  const auto& values = kKnown[4].values;
  const double unique = 1e10, n = 4e8;
  const double effective = unique + unique * 15.387756 * (1 - std::exp(-3 / 15.387756));
  EXPECT_NEAR(loss_of("muennighoff", values, Sample(n, 4 * unique, 1, unique)),
              1.87 + 521 / std::pow(n, 0.353) + 1488 / std::pow(effective, 0.353), 1e-12);
  // Without repetition, and with as many parameters as the data call for, it is Chinchilla's law.
  EXPECT_NEAR(loss_of("muennighoff", values, Sample(n, unique, 1)),
              1.87 + 521 / std::pow(n, 0.353) + 1488 / std::pow(unique, 0.353), 1e-12);
  // Parameters beyond 0.051 a unique token count less and less.
  const double called_for = 0.051 * unique, many = 8 * called_for;
  const double n_effective = called_for * (1 + 5.309743 * (1 - std::exp(-7 / 5.309743)));
  EXPECT_NEAR(loss_of("muennighoff", values, Sample(many, unique, 1)),
              1.87 + 521 / std::pow(n_effective, 0.353) + 1488 / std::pow(unique, 0.353), 1e-12);
}

TEST(Form, AnUnknownNameIsToldWithTheKnownOnes) {
  try {
    make_form("chincilla");
    FAIL();
  } catch (const UsageError& error) {
    EXPECT_NE(std::string(error.what()).find("chincilla"), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("chinchilla, coupled, kaplan"), std::string::npos);
  }
}

}  // namespace
}  // namespace tessera
