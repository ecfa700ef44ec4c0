#include "scaling/law/critical_batch.h"

#include <gtest/gtest.h>

#include <vector>

#include "tensor/check.h"

namespace tessera {
namespace {

TEST(CriticalBatch, IsWhereStepsAndTokensAreTwiceTheirLeast) {
  std::vector<BatchRun> runs;
  for (double batch : {1e4, 1e5, 1e6, 1e7}) runs.push_back({batch, 2000 + 8e8 / batch});
  const CriticalBatch found = fit_critical_batch(runs);
  EXPECT_NEAR(found.least_steps, 2000, 1e-8);
  EXPECT_NEAR(found.least_tokens, 8e8, 1e-2);
  EXPECT_NEAR(found.tokens(), 4e5, 1e-5);
  EXPECT_NEAR(found.steps_at(4e5), 4000, 1e-8);
}

TEST(CriticalBatch, SaysOnWhichSideItLies) {
  const std::vector<BatchRun> small = {{1e3, 1000}, {2e3, 500}, {4e3, 250}};
  const std::vector<BatchRun> large = {{1e3, 1000}, {2e3, 1000}, {4e3, 1000}};
  const auto message = [](const std::vector<BatchRun>& runs) -> std::string {
    try {
      const CriticalBatch found = fit_critical_batch(runs);
      return found.least_steps < 1e-9 * found.steps_at(1e3) ? "is larger" : "none";
    } catch (const DataError& error) {
      return error.what();
    }
  };
  EXPECT_NE(message(small).find("is larger"), std::string::npos) << message(small);
  EXPECT_NE(message({{1e3, 1000}, {2e3, 480}}).find("is larger"), std::string::npos);
  EXPECT_NE(message({{1e3, 1000}, {2e3, 1010}}).find("is smaller"), std::string::npos);
  EXPECT_NE(message({{1e3, 1000}, {1e3, 990}}).find("1 batch sizes"), std::string::npos);
  EXPECT_NE(message({{1e3, 1000}, {2e3, -1}}).find("-1 steps"), std::string::npos);
}

}  // namespace
}  // namespace tessera
