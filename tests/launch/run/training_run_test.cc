// A run of several phases in one process is the run that stops after each of them and is started again.
#include "launch/run/training_run.h"

#include <filesystem>
#include <fstream>

#include "checkpoint/handover.h"
#include "launch/config/read.h"
#include "launch/config/resolve.h"
#include "launch/config/run_layout.h"
#include "launch/run.pb.h"
#include "parallel/comm/comm_threads.h"
#include "tests/launch/run/small_run.h"
#include "tests/support/message_of.h"

namespace tessera::testing {
namespace {

// The config of SmallRun with these changes, resolved for so many ranks.
RunConfig config_of(const std::string& file, const std::vector<std::string>& set, int ranks) {
  RunConfig config;
  Origins origins;
  read_config(file, set, config, origins);
  resolve(config, origins, {.world_size = ranks, .tokenizer_vocab_size = 257});
  return config;
}

class TrainingRunPhases : public SmallRun {
 protected:
  using Changes = std::vector<std::string>;

  static Changes with_dir(Changes changes, const std::string& dir) {
    changes.push_back("run.dir=" + path(dir));
    return changes;
  }

  // All phases in one process: each trains to its run.steps.
  static void in_one(const std::string& dir, const std::vector<Changes>& phases, int ranks) {
    run_ranks(ranks, [&](Comm& world) {
      std::vector<RunConfig> configs;
      for (const Changes& changes : phases)
        configs.push_back(config_of(path("run.textproto"), with_dir(changes, dir), ranks));
      Session session{world, 1, "", {world.rank(), ranks, true}};
      TrainingRun run(configs[0], plan_layout(configs[0]), session, {});
      ASSERT_EQ(run.run(), 0);
      for (size_t i = 1; i < configs.size(); ++i) {
        run.begin_phase(configs[i], plan_layout(configs[i]));
        ASSERT_EQ(run.run(), 0);
        EXPECT_EQ(run.position().step, configs[i].run().steps());
      }
    });
  }

  // A start for each phase.
  static void one_by_one(const std::string& dir, const std::vector<Changes>& phases, int ranks) {
    run_ranks(ranks, [&](Comm& world) {
      for (const Changes& changes : phases) {
        const RunConfig config = config_of(path("run.textproto"), with_dir(changes, dir), ranks);
        Session session{world, 1, "", {world.rank(), ranks, true}};
        ASSERT_EQ(TrainingRun(config, plan_layout(config), session, {.allow_change = {"data", "model"}}).run(), 0);
      }
    });
  }

  static void expect_same(const std::string& name, const std::vector<Changes>& phases, int ranks, int64_t last) {
    SCOPED_TRACE(name);
    in_one(name + "_one", phases, ranks);
    one_by_one(name + "_each", phases, ranks);
    EXPECT_EQ(std::ssize(losses(name + "_one")), last);
    EXPECT_EQ(losses(name + "_one"), losses(name + "_each"));
    const std::string checkpoint = "/checkpoints/" + step_name(last);
    for (int rank = 0; rank < ranks; ++rank) {
      const std::string shard = checkpoint + "/shard-0000" + std::to_string(rank) + ".h5";
      EXPECT_GT(read_whole(path(name + "_one") + shard).size(), 0u);
      EXPECT_TRUE(read_whole(path(name + "_one") + shard) == read_whole(path(name + "_each") + shard)) << rank;
    }
  }
};

TEST_F(TrainingRunPhases, AnotherSequenceLengthAndBatch) {
  expect_same("length",
              {{"run.steps=6"},
               {"run.steps=12", "data.sequence_length=48", "data.global_batch_size=6", "data.micro_batch_size=3"},
               {"run.steps=16", "data.sequence_length=16"}},
              1, 16);
}

TEST_F(TrainingRunPhases, AnotherLayout) {
  expect_same("layout",
              {{"run.steps=5", "parallel.tp=2"},
               {"run.steps=9", "parallel.zero_stage=3"},
               {"run.steps=12", "parallel.cp=2", "data.sequence_length=64"}},
              2, 12);
}

TEST_F(TrainingRunPhases, TheHistorySaysWhatEachPhaseWas) {
  run_ranks(1, [&](Comm& world) {
    const RunConfig first = config_of(path("run.textproto"), with_dir({"run.steps=3"}, "history"), 1);
    const RunConfig second =
        config_of(path("run.textproto"), with_dir({"run.steps=5", "data.sequence_length=64"}, "history"), 1);
    Session session{world, 1, "", {}};
    TrainingRun run(first, plan_layout(first), session, {});
    ASSERT_EQ(run.run(), 0);
    run.begin_phase(second, plan_layout(second));
    ASSERT_EQ(run.run(), 0);
    ASSERT_EQ(run.history().periods().size(), 2u);
    EXPECT_EQ(run.history().periods()[1].first_sample, 3 * 4);
    EXPECT_EQ(run.history().periods()[1].sequence_length, 64);
    EXPECT_EQ(run.history().periods()[1].sources[0].base, 3 * 4 * 32);
    EXPECT_EQ(run.position().samples, 5 * 4);
  });
}

TEST_F(TrainingRunPhases, AnotherModelIsRefused) {
  run_ranks(1, [&](Comm& world) {
    const RunConfig first = config_of(path("run.textproto"), with_dir({"run.steps=2"}, "model"), 1);
    const RunConfig second =
        config_of(path("run.textproto"), with_dir({"run.steps=4", "model.hidden_size=64"}, "model"), 1);
    Session session{world, 1, "", {}};
    TrainingRun run(first, plan_layout(first), session, {});
    ASSERT_EQ(run.run(), 0);
    const std::string message = message_of<CheckpointError>([&] { run.begin_phase(second, plan_layout(second)); });
    EXPECT_NE(message.find("it is of another model or optimizer"), std::string::npos) << message;
  });
}

}  // namespace
}  // namespace tessera::testing
