#include "launch/process/watchdog.h"

#include <gtest/gtest.h>

#include <chrono>
#include <limits>
#include <thread>

#include "tensor/check.h"

namespace tessera {
namespace {

using std::chrono::milliseconds;

// ThreadSanitizer and threads in the parent ask for death tests that start anew.
class WatchdogDeathTest : public ::testing::Test {
 protected:
  WatchdogDeathTest() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

TEST_F(WatchdogDeathTest, NamesTheHangAndExits86) {
  EXPECT_EXIT(
      {
        Watchdog watchdog({.timeout_seconds = 0.2, .rank = 3, .host = "node7"});
        watchdog.progress("forward", 12);
        watchdog.progress("all_reduce tp", 12);
        std::this_thread::sleep_for(std::chrono::seconds(30));
      },
      ::testing::ExitedWithCode(86),
      "tessera: watchdog: rank 3 on node7: no progress for 0\\.[0-9] s in 'all_reduce tp' at step 12");
}

TEST_F(WatchdogDeathTest, WatchesFromTheStart) {
  EXPECT_EXIT(
      {
        Watchdog watchdog({.timeout_seconds = 0.1, .rank = 0, .host = "node7"});
        std::this_thread::sleep_for(std::chrono::seconds(30));
      },
      ::testing::ExitedWithCode(86), "no progress for 0\\.[0-9] s in 'starting' at step 0");
}

TEST_F(WatchdogDeathTest, AHangAfterProgressIsNoticedToo) {
  EXPECT_EXIT(
      {
        Watchdog watchdog({.timeout_seconds = 0.3, .rank = 0, .host = "node7"});
        for (int step = 1; step <= 40; ++step) {
          watchdog.progress("step", step);
          std::this_thread::sleep_for(milliseconds(10));
        }
        std::this_thread::sleep_for(std::chrono::seconds(30));
      },
      ::testing::ExitedWithCode(86), "in 'step' at step 40");
}

TEST(Watchdog, StaysQuietWhileThingsMove) {
  Watchdog watchdog({.timeout_seconds = 1, .rank = 0, .host = "node7"});
  // Longer than the timeout in all.
  for (int step = 0; step < 130; ++step) {
    watchdog.progress("step", step);
    std::this_thread::sleep_for(milliseconds(10));
  }
}

TEST(Watchdog, ZeroIsNoWatchdog) {
  Watchdog watchdog({.timeout_seconds = 0, .rank = 0, .host = "node7"});
  std::this_thread::sleep_for(milliseconds(50));
  watchdog.progress("step", 1);
}

TEST(Watchdog, EndsAtOnce) {
  const auto start = std::chrono::steady_clock::now();
  { Watchdog watchdog({.timeout_seconds = 3600, .rank = 0, .host = "node7"}); }
  // Its look interval is a second; the destructor must not wait for it.
  EXPECT_LT(std::chrono::steady_clock::now() - start, milliseconds(900));
}

TEST(Watchdog, RefusesANonsensicalTimeout) {
  EXPECT_THROW(Watchdog({.timeout_seconds = -1, .rank = 0, .host = "h"}), UsageError);
  EXPECT_THROW(Watchdog({.timeout_seconds = std::numeric_limits<double>::infinity(), .rank = 0, .host = "h"}),
               UsageError);
}

}  // namespace
}  // namespace tessera
