// The paper's own test: fitted on five cheap runs, the law foresees two that cost 300 times as much.
#include "scaling/law/gadre.h"

#include <gtest/gtest.h>

#include <cmath>

#include "scaling/fit/projection.h"
#include "scaling/runs.h"
#include "tests/support/program.h"

namespace tessera {
namespace {

TEST(Gadre, PredictsTheLargeRunsOfThePaperFromItsFiveCheapOnes) {
  const RunTable table = read_runs(testing::source_dir() + "/tests/scaling/gadre_redpajama.csv");
  std::vector<Sample> cheap;
  const tessera::Run* overtrained = nullptr;
  const tessera::Run* large = nullptr;
  for (const tessera::Run& run : table.runs) {
    const double ratio = run.tokens / run.parameters;
    if (run.parameters < 1e9 && std::abs(ratio - 20) < 1) cheap.push_back(run.sample());
    if (run.parameters < 2e7 && std::abs(ratio - 320) < 1) cheap.push_back(run.sample());
    if (run.parameters > 1e9 && run.parameters < 2e9 && ratio > 600) overtrained = &run;
    if (run.parameters > 6e9) large = &run;
  }
  ASSERT_EQ(cheap.size(), 5u);
  ASSERT_NE(overtrained, nullptr);
  ASSERT_NE(large, nullptr);

  const Gadre law;
  const Fit found = fit_by_projection(law, cheap, ProjectionError::Absolute);
  const auto error = [&](const tessera::Run& run) {
    return std::abs(law.loss(run.sample(), found.theta) / run.loss - 1);
  };
  EXPECT_LE(error(*overtrained), 0.00711);
  EXPECT_LE(error(*large), 0.00733);
  // The constants that the paper's notebook prints, in its way of writing: a N^-2eta + b' 6^-eta D^-2eta + E.
  const auto values = law.values(found.theta);
  EXPECT_NEAR(values[0], 1.837, 5e-4);
  EXPECT_NEAR(values[1] * std::pow(6, -values[3]), 166.2, 0.05);
  EXPECT_NEAR(values[2], 366.7, 0.05);
  EXPECT_NEAR(2 * values[3], 0.2729, 5e-5);
}

}  // namespace
}  // namespace tessera
