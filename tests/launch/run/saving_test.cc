// When a run saves and stops, through the command line, and that no kill costs more than the steps since the last save.
#include "launch/run/saving.h"

#include <signal.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "tensor/context/random.h"
#include "tests/launch/run/small_run.h"

namespace tessera::testing {
namespace {

namespace fs = std::filesystem;

class SavingCommand : public SmallRun {};

TEST_F(SavingCommand, KeepsVerifiedCheckpointsAndNoOthers) {
  const ProgramResult result = train("kept", "--set checkpoint.keep_every=16");
  ASSERT_EQ(result.code, 0) << result.output;
  const auto all = entries("kept");
  std::vector<int64_t> found;
  for (const auto& entry : all) {
    found.push_back(entry.step);
    EXPECT_TRUE(entry.verified) << entry.name;
  }
  EXPECT_EQ(found, (std::vector<int64_t>{16, 32, 36, 40}));
}

TEST_F(SavingCommand, BlockingAndAsynchronousRunsAreEqual) {
  ASSERT_EQ(train("async").code, 0);
  ASSERT_EQ(train("blocking", "--set checkpoint.asynchronous=false").code, 0);
  for (const char* dir : {"async", "blocking"}) EXPECT_EQ(steps(dir), (std::vector<int64_t>{32, 36, 40})) << dir;
  expect_equal_runs("async", "blocking", 40);
}

TEST_F(SavingCommand, TheFileStopSavesAndEndsAndTheRunGoesOnAsIfItHadNot) {
  ASSERT_EQ(train("whole").code, 0);
  ask("stopped", "STOP");
  for (const int ranks : {0, 2}) {
    const ProgramResult stopped = run_program(arguments("stopped"), ranks);
    EXPECT_EQ(stopped.code, 75) << stopped.output;
    EXPECT_NE(stopped.output.find("the file STOP"), std::string::npos) << stopped.output;
    EXPECT_FALSE(fs::exists(path("stopped/STOP"))) << "it asks once";
    EXPECT_EQ(newest("stopped"), ranks == 0 ? 1 : 2);
    ask("stopped", "STOP");
  }
  fs::remove(path("stopped/STOP"));
  fs::remove_all(path("stopped"));
  ask("stopped", "STOP");
  ASSERT_EQ(train("stopped").code, 75);
  const ProgramResult resumed = train("stopped");
  ASSERT_EQ(resumed.code, 0) << resumed.output;
  EXPECT_NE(resumed.output.find("at step 1"), std::string::npos) << resumed.output;
  expect_equal_runs("whole", "stopped", 40);
}

TEST_F(SavingCommand, TheFileCheckpointSavesAndGoesOn) {
  ask("asked", "CHECKPOINT");
  const ProgramResult result = train("asked", "--set checkpoint.every_steps=0 --set checkpoint.asynchronous=false");
  EXPECT_EQ(result.code, 0) << result.output;
  EXPECT_EQ(steps("asked"), (std::vector<int64_t>{1, 40}));
  EXPECT_FALSE(fs::exists(path("asked/CHECKPOINT")));
}

TEST_F(SavingCommand, TheTimeLimitIsKept) {
  const ProgramResult result = train("limited", "--set checkpoint.time_limit_minutes=0.000001");
  EXPECT_EQ(result.code, 75) << result.output;
  EXPECT_NE(result.output.find("the time limit"), std::string::npos) << result.output;
  EXPECT_EQ(newest("limited"), 1);
  EXPECT_EQ(train("limited", "--set checkpoint.time_limit_minutes=60").code, 0);
}

TEST_F(SavingCommand, MinutesAreADueDateToo) {
  const ProgramResult result =
      train("minutes",
            "--set checkpoint.every_minutes=0.0000001 --set checkpoint.every_steps=0 --set run.steps=5 "
            "--set checkpoint.asynchronous=false");
  EXPECT_EQ(result.code, 0) << result.output;
  EXPECT_EQ(steps("minutes"), (std::vector<int64_t>{3, 4, 5}));
}

TEST_F(SavingCommand, ASignalSavesAndGoesOn) {
  for (const int ranks : {0, 2}) {
    const std::string dir = "signal" + std::to_string(ranks);
    const ProgramResult result =
        disturb_program(arguments(dir, "--set checkpoint.every_steps=0 --set run.steps=400"), ranks, metrics(dir),
                        "\"step\":20,", [](int process) { kill(process, SIGUSR1); });
    EXPECT_EQ(result.code, 0) << result.output;
    const auto found = steps(dir);
    ASSERT_EQ(found.size(), 2u) << result.output;
    EXPECT_GE(found[0], 20);
    EXPECT_LT(found[0], 400);
    EXPECT_EQ(found[1], 400);
  }
}

TEST_F(SavingCommand, AKillAtAFailpointCostsNothing) {
  ASSERT_EQ(train("unharmed").code, 0);
  for (const char* place : {"shard_created", "index_written", "manifest_written", "published", "verified", "marked"}) {
    const std::string dir = std::string("killed_") + place;
    setenv("TESSERA_FAIL", (std::string(place) + ":2").c_str(), 1);
    const ProgramResult killed = train(dir);
    unsetenv("TESSERA_FAIL");
    EXPECT_EQ(killed.code, 128 + SIGKILL) << place << ": " << killed.output;
    EXPECT_GE(newest(dir), 4) << place;
    const ProgramResult resumed = train(dir);
    ASSERT_EQ(resumed.code, 0) << resumed.output;
    EXPECT_EQ(resumed.output.find("passed over"), std::string::npos) << resumed.output;
    expect_equal_runs("unharmed", dir, 40);
    for (const auto& entry : entries(dir)) EXPECT_EQ(entry.state, CheckpointEntry::State::Valid) << entry.name;
  }
  setenv("TESSERA_FAIL", "nowhere", 1);
  const ProgramResult refused = train("killed_nowhere");
  unsetenv("TESSERA_FAIL");
  EXPECT_EQ(refused.code, 2);
  EXPECT_NE(refused.output.find("manifest_written"), std::string::npos) << refused.output;
}

// Processes that mpirun started.
std::vector<int> children(int process) {
  std::vector<int> all;
  const std::string tasks = "/proc/" + std::to_string(process) + "/task";
  std::error_code gone;
  for (const auto& task : fs::directory_iterator(tasks, gone)) {
    std::ifstream file(task.path() / "children");
    for (int child; file >> child;) all.push_back(child);
  }
  return all;
}

// kill -9 of a random rank at random times; the run is started again until it ends.
void survive_kills(int kills, int ranks, const std::string& name,
                   const std::function<std::string(const std::string&)>& path,
                   const std::function<std::string(const std::string&)>& arguments,
                   const std::function<int64_t(const std::string&)>& newest, int64_t steps) {
  const RandomStream random(7, name);
  uint64_t draw = 0;
  int done = 0, resumed = 0;
  for (; done < kills; ++done) {
    const int64_t from = newest(name);
    // Late enough to have gone on, early enough not to end.
    const int64_t at = from + 1 + static_cast<int64_t>(random.below(draw++, 9));
    if (at + 9 >= steps) break;
    const auto delay = std::chrono::microseconds(random.below(draw++, 30000));
    const uint64_t who = random.bits(draw++);
    const ProgramResult result =
        disturb_program(arguments(name), ranks, path(name + "/metrics.jsonl"), "\"step\":" + std::to_string(at) + ",",
                        [&](int process) {
                          std::this_thread::sleep_for(delay);
                          const auto all = children(process);
                          kill(ranks == 0 || all.empty() ? process : all[who % all.size()], SIGKILL);
                        });
    ASSERT_EQ(result.code, 128 + SIGKILL) << result.output;
    // The run before may have left the awaited step's line: then this one is killed at its very start, and says
    // nothing.
    if (result.output.find("resumed from") != std::string::npos) {
      ++resumed;
      EXPECT_NE(result.output.find("at step " + std::to_string(from) + "\n"), std::string::npos)
          << "it is to go on from " << from << "\n"
          << result.output;
    }
    EXPECT_EQ(result.output.find("passed over"), std::string::npos) << result.output;
    if (ranks > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1500));  // the other ranks end a little later
  }
  EXPECT_GT(done, 0);
  EXPECT_GT(resumed, 0);
}

TEST_F(SavingCommand, RandomKillsCostNothing) {
  const std::string more = "--set run.steps=160 --set checkpoint.every_steps=3";
  ASSERT_EQ(train("calm", more).code, 0);
  survive_kills(
      10, 0, "storm", path, [&](const std::string& dir) { return arguments(dir, more); }, newest, 160);
  ASSERT_EQ(train("storm", more).code, 0);
  expect_equal_runs("calm", "storm", 160);
}

TEST_F(SavingCommand, DISABLED_ManyRandomKillsCostNothing) {
  const std::string more = "--set run.steps=2000 --set parallel.tp=2 --set checkpoint.every_steps=3";
  ASSERT_EQ(run_program(arguments("calm2", more), 2).code, 0);
  survive_kills(
      200, 2, "storm2", path, [&](const std::string& dir) { return arguments(dir, more); }, newest, 2000);
  ASSERT_EQ(run_program(arguments("storm2", more), 2).code, 0);
  expect_equal_runs("calm2", "storm2", 2000);
}

}  // namespace
}  // namespace tessera::testing
