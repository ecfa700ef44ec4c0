// One run, one writer: between processes on this machine, and against locks that other machines left.
#include "launch/run/run_lock.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <thread>
#include <vector>

#include "launch/process/host.h"
#include "tensor/check.h"
#include "tests/launch/run/small_run.h"
#include "tests/support/message_of.h"

namespace tessera::testing {
namespace {

namespace fs = std::filesystem;

// A directory of its own for a test.
class RunLockFile : public ::testing::Test {
 protected:
  void SetUp() override {
    directory_ = fs::path(::testing::TempDir()) / ("run_lock_" + std::to_string(getpid()));
    fs::remove_all(directory_);
    fs::create_directories(directory_);
  }
  void TearDown() override { fs::remove_all(directory_); }

  std::string lock() const { return (directory_ / kLockName).string(); }
  void leave(const LockHolder& holder, double seconds_ago) const {
    std::ofstream(lock()) << holder.to_text();
    fs::last_write_time(
        lock(), fs::file_time_type::clock::now() - std::chrono::milliseconds(static_cast<int64_t>(1000 * seconds_ago)));
  }
  std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const auto& entry : fs::directory_iterator(directory_)) all.push_back(entry.path().filename());
    return all;
  }

  fs::path directory_;
};

LockHolder elsewhere() {
  LockHolder holder = this_holder();
  holder.host = "node7";
  holder.machine = "another boot/another namespace";
  return holder;
}

// A process id that nobody has, as its process has ended and was waited for.
LockHolder dead_here() {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  waitpid(child, nullptr, 0);
  LockHolder holder = this_holder();
  holder.process = child;
  return holder;
}

TEST_F(RunLockFile, TextComesBackAndNothingElseIsALock) {
  const LockHolder holder = this_holder();
  EXPECT_EQ(LockHolder::from_text(holder.to_text()), holder);
  EXPECT_FALSE(LockHolder::from_text(""));
  EXPECT_FALSE(LockHolder::from_text("tessera lock 2\ntoken 12\n"));
  EXPECT_FALSE(LockHolder::from_text("tessera lock 1\nhost a\n"));
  EXPECT_FALSE(LockHolder::from_text("tessera lock 1\ntoken ../../x\n"));
}

TEST_F(RunLockFile, IsHeldByOneAndReleased) {
  {
    const RunLock held(directory_.string());
    const std::string message = message_of<UsageError>([&] { RunLock(directory_.string()); });
    EXPECT_NE(message.find("process " + std::to_string(getpid()) + " on " + host_name()), std::string::npos) << message;
    EXPECT_EQ(names(), std::vector<std::string>{kLockName});
    EXPECT_FALSE(held.taken_from());
    EXPECT_FALSE(held.lost());
  }
  EXPECT_TRUE(names().empty());
  const RunLock again(directory_.string());
  EXPECT_FALSE(again.taken_from()) << "it was released, not abandoned";
}

TEST_F(RunLockFile, ADirectoryMadeForItGoesWhenItHoldsNothing) {
  { const RunLock held((directory_ / "a/b").string()); }
  EXPECT_FALSE(fs::exists(directory_ / "a"));
  {
    const RunLock held((directory_ / "a/b").string());
    std::ofstream(directory_ / "a/b/file") << "x";
  }
  EXPECT_TRUE(fs::exists(directory_ / "a/b/file"));
}

TEST_F(RunLockFile, ADeadProcessOfThisMachineHoldsNothingHoweverFreshItsLock) {
  const LockHolder dead = dead_here();
  leave(dead, 0);
  {
    const RunLock taken(directory_.string());
    ASSERT_TRUE(taken.taken_from());
    EXPECT_EQ(*taken.taken_from(), dead);
    EXPECT_EQ(names(), std::vector<std::string>{kLockName}) << "what taking over needs is gone";
  }
  // The id of the dead process was given to another one: this one, which began at another time.
  LockHolder reused = this_holder();
  ++reused.start;
  leave(reused, 0);
  EXPECT_TRUE(RunLock(directory_.string()).taken_from());
}

TEST_F(RunLockFile, ALockOfAnotherMachineLivesAsLongAsItsSignsOfLife) {
  const LockHolder other = elsewhere();
  leave(other, 0.5 * kStaleSeconds);
  const std::string message = message_of<UsageError>([&] { RunLock(directory_.string()); });
  EXPECT_NE(message.find("process " + std::to_string(other.process) + " on node7, since " + other.since),
            std::string::npos)
      << message;
  EXPECT_EQ(read_whole(lock()), other.to_text()) << "it is left as it was";
  leave(other, 1.5 * kStaleSeconds);
  const RunLock taken(directory_.string());
  EXPECT_EQ(taken.taken_from(), other);
}

TEST_F(RunLockFile, WhoDiedWhileTakingOverIsTakenOverToo) {
  const LockHolder first = dead_here(), second = dead_here();
  leave(first, 0);
  std::ofstream(lock() + ".after-" + first.token) << second.to_text();
  {
    const RunLock taken(directory_.string());
    EXPECT_EQ(taken.taken_from(), first);
    EXPECT_EQ(names(), std::vector<std::string>{kLockName});
  }
  EXPECT_TRUE(names().empty());
}

TEST_F(RunLockFile, OfManyWhoTakeOverOneWins) {
  for (int round = 0; round < 20; ++round) {
    leave(dead_here(), 0);
    std::atomic<int> won = 0, refused = 0, ready = 0;
    std::vector<std::unique_ptr<RunLock>> locks(8);
    std::vector<std::thread> threads;
    for (auto& slot : locks) {
      threads.emplace_back([&] {
        ++ready;
        while (ready < 8) {
        }
        try {
          slot = std::make_unique<RunLock>(directory_.string());
          ++won;
        } catch (const UsageError&) {
          ++refused;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(won, 1);
    EXPECT_EQ(refused, 7);
    locks.clear();
    EXPECT_TRUE(names().empty());
  }
}

class RunLockCommand : public SmallRun {
 protected:
  // Runs that begin at once and end when all have: their results.
  static std::vector<ProgramResult> at_once(const std::vector<std::string>& runs, int ranks) {
    std::vector<ProgramResult> results(runs.size());
    std::vector<std::thread> threads;
    for (size_t i = 0; i < runs.size(); ++i) threads.emplace_back([&, i] { results[i] = run_program(runs[i], ranks); });
    for (std::thread& thread : threads) thread.join();
    return results;
  }
};

TEST_F(RunLockCommand, OfTwoProcessesAtOnceOneTrainsAndTheOtherIsRefused) {
  for (const int ranks : {0, 2}) {
    const std::string dir = "both" + std::to_string(ranks);
    const std::string more = "--set run.steps=400 --set checkpoint.every_steps=40 --set run.seed=";
    const auto results = at_once({arguments(dir, more + "1"), arguments(dir, more + "2")}, ranks);
    const size_t winner = results[0].code == 0 ? 0 : 1;
    EXPECT_EQ(results[winner].code, 0) << results[winner].output;
    const ProgramResult& loser = results[1 - winner];
    EXPECT_EQ(loser.code, 2) << loser.output;
    EXPECT_NE(loser.output.find("is being trained by process "), std::string::npos) << loser.output;
    EXPECT_NE(loser.output.find(" on " + host_name() + ", since "), std::string::npos) << loser.output;
    for (const auto& entry : entries(dir)) EXPECT_EQ(entry.state, CheckpointEntry::State::Valid) << entry.name;
    EXPECT_EQ(losses(dir).size(), 400u) << "of one run alone";
    EXPECT_FALSE(fs::exists(path(dir) + "/LOCK"));
  }
}

TEST_F(RunLockCommand, AKilledOwnerIsTakenOverAndSaid) {
  const ProgramResult killed = disturb_program(arguments("orphan", "--set run.steps=400"), 0, metrics("orphan"),
                                               "\"step\":20,", [](int process) { kill(process, SIGKILL); });
  ASSERT_EQ(killed.code, 128 + SIGKILL);
  ASSERT_TRUE(fs::exists(path("orphan/LOCK")));
  const ProgramResult resumed = train("orphan");
  EXPECT_EQ(resumed.code, 0) << resumed.output;
  EXPECT_NE(resumed.output.find("took over the lock of process "), std::string::npos) << resumed.output;
  EXPECT_FALSE(fs::exists(path("orphan/LOCK")));
}

TEST_F(RunLockCommand, TheLockGoesWhenTheRunEndsInAnError) {
  ASSERT_EQ(train("error", "--set run.steps=4").code, 0);
  EXPECT_EQ(train("error", "--set model.hidden_size=64").code, 2);
  EXPECT_FALSE(fs::exists(path("error/LOCK")));
}

// Another process's lock appears in place of this one's, as after a long stop: the run ends at its next step.
TEST_F(RunLockCommand, ARunThatWasTakenOverWritesNothingMore) {
  const ProgramResult result =
      disturb_program(arguments("taken", "--set run.steps=100000 --set checkpoint.every_steps=100000"), 0,
                      metrics("taken"), "\"step\":20,", [](int) {
                        std::ofstream(path("taken/LOCK.new")) << elsewhere().to_text();
                        fs::rename(path("taken/LOCK.new"), path("taken/LOCK"));
                      });
  EXPECT_EQ(result.code, 74) << result.output;
  EXPECT_NE(result.output.find("another process took this run over"), std::string::npos) << result.output;
  EXPECT_TRUE(fs::exists(path("taken/LOCK"))) << "it is the other's";
  EXPECT_TRUE(entries("taken").empty());
}

}  // namespace
}  // namespace tessera::testing
