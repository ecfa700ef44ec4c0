// Signals that ask a run to end, as schedulers and people send them: alone and under mpirun.
#include <signal.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "launch/process/signals.h"
#include "tests/launch/run/small_run.h"

namespace tessera::testing {
namespace {

namespace fs = std::filesystem;

// Processes that a process started.
std::vector<int> children(int process) {
  std::vector<int> all;
  std::error_code gone;
  for (const auto& task : fs::directory_iterator("/proc/" + std::to_string(process) + "/task", gone)) {
    std::ifstream file(task.path() / "children");
    for (int child; file >> child;) all.push_back(child);
  }
  return all;
}

class StoppingCommand : public SmallRun {
 protected:
  static constexpr const char* kLong = "--set run.steps=100000 --set checkpoint.every_steps=0";

  // Sends `number` at step 20 to the ranks below `told`, or to the only process.
  static ProgramResult interrupted(const std::string& dir, int ranks, int told, int number,
                                   const std::string& more = kLong) {
    return disturb_program(arguments(dir, more), ranks, metrics(dir), "\"step\":20,", [=](int process) {
      if (ranks == 0) {
        kill(process, number);
        return;
      }
      const std::vector<int> all = children(process);
      for (int i = 0; i < told; ++i) kill(all.at(all.size() - 1 - static_cast<size_t>(i)), number);
    });
  }
};

TEST_F(StoppingCommand, EachSignalSavesAndEndsAndTheRunGoesOn) {
  for (const int number : {SIGTERM, SIGINT, SIGHUP, SIGUSR2}) {
    const std::string dir = signal_name(number);
    const ProgramResult result = interrupted(dir, 0, 0, number);
    EXPECT_EQ(result.code, 75) << result.output;
    EXPECT_NE(result.output.find("stopped, as " + dir + " asks; start again to go on"), std::string::npos)
        << result.output;
    EXPECT_NE(result.output.find("tessera: told to end"), std::string::npos) << result.output;
    const int64_t step = newest(dir);
    EXPECT_GE(step, 20);
    EXPECT_LT(step, 100000);
    EXPECT_EQ(static_cast<int64_t>(losses(dir).size()), step) << "it ends with what it saved";
    EXPECT_FALSE(fs::exists(path(dir) + "/LOCK"));
  }
  const ProgramResult resumed = train("SIGTERM", "--set run.steps=" + std::to_string(newest("SIGTERM") + 1));
  EXPECT_EQ(resumed.code, 0) << resumed.output;
}

TEST_F(StoppingCommand, UnderMpirunAllRanksEndTogetherWhoeverWasTold) {
  for (const int told : {1, 2}) {
    const std::string dir = "ranks" + std::to_string(told);
    const ProgramResult result = interrupted(dir, 2, told, SIGTERM, std::string(kLong) + " --set parallel.tp=2");
    EXPECT_EQ(result.code, 75) << result.output;
    EXPECT_NE(result.output.find("stopped, as SIGTERM asks"), std::string::npos) << result.output;
    EXPECT_EQ(static_cast<int64_t>(losses(dir).size()), newest(dir));
  }
}

// mpirun passes SIGUSR2 on to all ranks. After SIGTERM it kills a second later: what is saved by then is whole.
TEST_F(StoppingCommand, MpirunItselfMayBeTold) {
  for (const int number : {SIGUSR2, SIGTERM}) {
    const std::string dir = "mpirun_" + signal_name(number);
    const ProgramResult result = disturb_program(arguments(dir, kLong), 2, metrics(dir), "\"step\":20,",
                                                 [&](int process) { kill(process, number); });
    if (number == SIGUSR2) {
      EXPECT_EQ(result.code, 75) << result.output;
      EXPECT_GE(newest(dir), 20) << result.output;
    } else {
      EXPECT_NE(result.code, 0) << result.output;
    }
    for (const auto& entry : entries(dir)) EXPECT_NE(entry.state, CheckpointEntry::State::Broken) << entry.name;
  }
}

TEST_F(StoppingCommand, TheSecondSignalEndsAtOnce) {
  // A step of half a minute, in which the first signal cannot be followed.
  const std::string slow = "--set run.steps=100000 --set checkpoint.every_steps=0 --set data.global_batch_size=400000 ";
  ASSERT_EQ(train("second", "--set run.steps=20 --set checkpoint.every_steps=0").code, 0);
  const auto start = std::chrono::steady_clock::now();
  const ProgramResult result = disturb_program(arguments("second", slow + "--allow-change data"), 0,
                                               path("second") + "/LOCK", "token", [](int process) {
                                                 // Signals are noted from when the run is set up, a moment after the lock is taken.
                                                 std::this_thread::sleep_for(std::chrono::seconds(2));
                                                 kill(process, SIGTERM);
                                                 std::this_thread::sleep_for(std::chrono::milliseconds(400));
                                                 kill(process, SIGTERM);
                                               });
  EXPECT_EQ(result.code, 128 + SIGTERM) << result.output;
  EXPECT_NE(result.output.find("tessera: told to end"), std::string::npos) << result.output;
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(15));
  EXPECT_EQ(newest("second"), 20);
}

TEST(Signals, ComeBackToWhatTheyDid) {
  ::signal(SIGUSR2, SIG_IGN);
  ::signal(SIGHUP, SIG_DFL);
  {
    const SignalRequests first(SignalRequests::Speech::Silent);
    SignalRequests second(SignalRequests::Speech::Silent);
    EXPECT_EQ(first.end(), 0);
    ::raise(SIGUSR2);
    EXPECT_EQ(first.end(), 0) << "what was ignored stays so";
    ::raise(SIGHUP);
    EXPECT_EQ(first.end(), SIGHUP);
    EXPECT_EQ(second.end(), SIGHUP);
    ::raise(SIGUSR1);
    EXPECT_TRUE(second.take_save());
    EXPECT_FALSE(second.take_save());
  }
  EXPECT_EQ(::signal(SIGHUP, SIG_DFL), SIG_DFL);
  EXPECT_EQ(::signal(SIGUSR2, SIG_DFL), SIG_IGN);
}

}  // namespace
}  // namespace tessera::testing
