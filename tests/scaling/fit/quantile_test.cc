#include "scaling/fit/quantile.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace tessera {
namespace {

TEST(Quantile, NormalHasTheValuesOfTables) {
  EXPECT_NEAR(normal_quantile(0.95), 1.6448536269514722, 1e-12);
  EXPECT_NEAR(normal_quantile(0.025), -1.9599639845400545, 1e-12);
  EXPECT_NEAR(normal_below(1), 0.8413447460685429, 1e-15);
}

TEST(Quantile, StudentHasTheValuesOfTables) {
  EXPECT_NEAR(student_quantile(0.95, 1), 6.313751515, 1e-8);
  EXPECT_NEAR(student_quantile(0.95, 2), 2.919985580, 1e-8);
  EXPECT_NEAR(student_quantile(0.975, 5), 2.570581836, 1e-8);
  EXPECT_NEAR(student_quantile(0.95, 55), 1.673033965, 1e-8);
  EXPECT_NEAR(student_quantile(0.05, 10), -1.812461123, 1e-8);
  EXPECT_EQ(student_quantile(0.5, 7), 0);
}

TEST(Quantile, BinomialAddsUp) {
  EXPECT_NEAR(binomial_below(2, 4, 0.5), 11.0 / 16, 1e-14);
  EXPECT_NEAR(binomial_below(400, 400, 0.9), 1, 1e-10);
}

TEST(Quantile, SamplesAreReadAtTheirRanks) {
  const std::vector<double> sample = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  EXPECT_EQ(sample_quantile(sample, 0.5), 5);
  EXPECT_EQ(sample_quantile(sample, 0.1), 1);
  EXPECT_NEAR(sample_quantile(sample, 0.25), 2.5, 1e-15);
  EXPECT_EQ(sample_quantile(sample, 0.999), 9);
}

}  // namespace
}  // namespace tessera
