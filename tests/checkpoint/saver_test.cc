#include "checkpoint/saver.h"

#include <sys/wait.h>
#include <unistd.h>

#include <condition_variable>
#include <csignal>

#include "checkpoint/scan.h"
#include "tests/checkpoint/layouts.h"
#include "tests/checkpoint/rig.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

const std::vector<TestTensor> kTensors = {{"a", {2500, 1000}}, {"b", {77}}, {"c", {1600, 1000}}};

// Training goes on, and changes the state, while the disk is held up.
TEST(Saver, WritesWhatTheStateWasWhileItChanges) {
  const std::string directory = fresh_directory();
  for (const int64_t ring : {2 * kBlockBytes, int64_t{64} << 20}) {
    run_ranks(2, [&](Comm& world) {
      FaultyStorage storage;
      std::mutex mutex;
      std::condition_variable opened;
      bool open = ring < (int64_t{64} << 20);  // a ring that holds all lets training go on without any writing
      storage.before = [&](const std::string& operation, const std::string& path) {
        std::unique_lock lock(mutex);
        if (operation == "append" && path.find("shard-") != std::string::npos) opened.wait(lock, [&] { return open; });
      };
      RankState rank(kTensors, held_by(kTensors, {.tp = 2}, world.rank()));
      Saver saver(world, storage, {.staging_bytes = ring});
      for (const int step : {1, 2, 3}) {
        rank.fill(static_cast<uint64_t>(step));
        saver.start(rank.state, save_info(directory, step));
        EXPECT_TRUE(saver.in_flight());
        EXPECT_EQ(saver.step(), step);
        saver.state_may_change();
        rank.fill(99);
        if (ring == int64_t{64} << 20) {
          EXPECT_FALSE(saver.poll().has_value()) << "the disk is held up";
          EXPECT_FALSE(fs::exists(directory + "/" + step_name(step)));
          world.barrier();
          {
            const std::lock_guard lock(mutex);
            open = true;
          }
          opened.notify_all();
        }
        std::optional<Saved> saved;
        while (!saved) saved = saver.poll();
        EXPECT_EQ(saved->path, directory + "/" + step_name(step));
        EXPECT_FALSE(saver.in_flight());
        EXPECT_FALSE(saver.poll().has_value());
        world.barrier();
        open = ring < (int64_t{64} << 20);
      }
      EXPECT_LE(saver.staging_bytes(), ring);
      PosixStorage plain;
      RankState loaded(kTensors, held_by(kTensors, {.tp = 2}, world.rank()));
      for (const int step : {1, 2, 3}) {
        load(world, plain, directory + "/" + step_name(step), loaded.state);
        EXPECT_EQ(loaded.wrong(static_cast<uint64_t>(step)), 0);
      }
    });
    fs::remove_all(directory);
  }
}

// The same bytes, whether the state waited or not.
TEST(Saver, AsynchronousAndBlockingSavesAreEqualBytes) {
  const std::string directory = fresh_directory();
  for (const int64_t ring : {int64_t{0}, 2 * kBlockBytes}) {
    run_ranks(3, [&](Comm& world) {
      PosixStorage storage;
      RankState rank(kTensors, held_by(kTensors, {.dp = 3, .zero = true}, world.rank()));
      rank.fill(5);
      Saver saver(world, storage, {.staging_bytes = ring});
      saver.start(rank.state, save_info(directory + "/" + std::to_string(ring), 1));
      saver.state_may_change();
      saver.finish();
    });
  }
  for (const auto& entry : fs::directory_iterator(directory + "/0/step-00000001")) {
    const std::string other = directory + "/" + std::to_string(2 * kBlockBytes) + "/step-00000001/";
    EXPECT_TRUE(slurp(entry.path()) == slurp(other + entry.path().filename().string())) << entry.path();
  }
}

// Slices that change between saves are planned anew.
TEST(Saver, PlansAgainWhenTheSlicesChange) {
  const std::string directory = fresh_directory();
  run_ranks(2, [&](Comm& world) {
    PosixStorage storage;
    Saver saver(world, storage, {});
    int step = 0;
    for (const Layout& layout : {Layout{.tp = 2}, Layout{.dp = 2}, Layout{.tp = 2}, Layout{.dp = 2, .zero = true}}) {
      RankState rank(kTensors, held_by(kTensors, layout, world.rank()));
      rank.fill(static_cast<uint64_t>(++step));
      saver.start(rank.state, save_info(directory, step));
      saver.finish();
      RankState loaded(kTensors, held_by(kTensors, {.tp = 2}, world.rank()));
      load(world, storage, directory + "/" + step_name(step), loaded.state);
      EXPECT_EQ(loaded.wrong(static_cast<uint64_t>(step)), 0);
    }
  });
}

TEST(Saver, AFailureInTheThreadIsEveryRanksAndTheNextSaveWorks) {
  const std::string directory = fresh_directory();
  run_ranks(3, [&](Comm& world) {
    FaultyStorage storage;
    bool full = world.rank() == 1;
    storage.before = [&](const std::string& operation, const std::string& path) {
      if (full && operation == "append") throw IoError("cannot write " + path + ": No space left on device");
    };
    RankState rank(kTensors, held_by(kTensors, {.tp = 3}, world.rank()));
    Saver saver(world, storage, {.staging_bytes = 2 * kBlockBytes});
    saver.start(rank.state, save_info(directory, 1));
    saver.state_may_change();
    const std::string message = message_of<IoError>([&] {
      while (!saver.poll()) continue;
    });
    EXPECT_NE(message.find("step 1 is not saved: rank 1: cannot write"), std::string::npos) << message;
    EXPECT_FALSE(saver.in_flight());
    full = false;
    rank.fill(2);
    saver.start(rank.state, save_info(directory, 2));
    saver.finish();
  });
  EXPECT_FALSE(fs::exists(directory + "/step-00000001"));
  EXPECT_FALSE(fs::exists(directory + "/step-00000001.tmp-test"));
  EXPECT_TRUE(fs::exists(directory + "/step-00000002"));
}

// A process that is killed (-9) at each failpoint, while it replaces step 2 and while it makes step 3.
TEST(Saver, KilledAtAnyFailpointTheOldOrTheNewOneIsThere) {
  const std::string directory = fresh_directory();
  for (const std::string_view point : kFailpoints) {
    if (point == "verified" || point == "marked") continue;  // of retention
    for (const int step : {2, 3}) {
      fs::remove_all(directory);
      save_filled(directory, 1, 1, {.parts = 2});
      save_filled(directory, 2, 2, {.parts = 2});
      const pid_t child = fork();
      if (child == 0) {
        run_ranks(2, [&](Comm& world) {
          PosixStorage storage;
          RankState rank(small_tensors(), {.parts = 2}, world.rank());
          rank.fill(30);
          Saver saver(world, storage, {.staging_bytes = 2 * kBlockBytes, .failpoint = [&](std::string_view place) {
                                         if (place == point) kill(getpid(), SIGKILL);
                                       }});
          saver.start(rank.state, save_info(directory, step));
          saver.state_may_change();
          saver.finish();
        });
        _exit(0);
      }
      int status = 0;
      ASSERT_EQ(waitpid(child, &status, 0), child);
      ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << point << " is never reached";
      run_ranks(2, [&](Comm& world) {
        PosixStorage storage;
        RankState rank(small_tensors(), {.parts = 2}, world.rank());
        const Found found = resume(world, storage, directory, rank.state);
        ASSERT_TRUE(found.checkpoint.has_value());
        EXPECT_TRUE(found.warnings.empty()) << found.warnings[0];
        const bool renamed = point == "published" || point == "parent_synced" || point == "latest_written";
        EXPECT_EQ(found.checkpoint->step, renamed ? step : 2) << point;
        EXPECT_EQ(rank.wrong(renamed ? 30 : 2), 0) << point;
        // The next save removes what is left over.
        rank.fill(31);
        save(world, storage, rank.state, save_info(directory, step));
      });
      for (const auto& entry : scan(*std::make_unique<PosixStorage>(), directory)) {
        EXPECT_EQ(entry.state, CheckpointEntry::State::Valid) << point << " " << entry.name;
      }
    }
  }
}

}  // namespace
}  // namespace tessera
