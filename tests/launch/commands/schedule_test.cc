// tessera schedule, through the command line.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "launch/commands/command.h"
#include "parallel/schedule/generate.h"
#include "parallel/schedule/text.h"
#include "tensor/check.h"
#include "tests/launch/commands/command_run.h"
#include "tests/support/program.h"

namespace tessera {
namespace {

std::string run(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "schedule");
  const testing::CommandRun run = testing::run_command(add_schedule, arguments);
  EXPECT_EQ(run.code, 0);
  return run.out;
}

nlohmann::json json(std::vector<std::string> arguments) {
  arguments.push_back("--json");
  const std::string out = run(std::move(arguments));
  return nlohmann::json::parse(out.substr(out.rfind('\n', out.size() - 2) + 1));
}

std::string complaint(std::vector<std::string> arguments) {
  try {
    run(std::move(arguments));
  } catch (const UsageError& error) {
    return error.what();
  }
  return "fine";
}

TEST(ScheduleCommand, PrintsTheGridAndTheFigures) {
  const std::string out = run({"--kind", "1f1b", "--stages", "2", "--microbatches", "2"});
  EXPECT_NE(out.find("rank 0: F0 F1 ...B0 W0 ...B1 W1 \nrank 1: ...F0 B0 W0 F1 B1 W1 ...\n"), std::string::npos) << out;
  const nlohmann::json zb = json({"--kind", "zb-h1", "--stages", "4", "--microbatches", "8"});
  EXPECT_EQ(zb["makespan"], 27);  // 8 microbatches of three units, and (p - 1)(F + B - W)
  EXPECT_NEAR(zb["bubble"].get<double>(), 1 - 24.0 / 27, 1e-12);
  EXPECT_EQ(zb["peak_slots"], nlohmann::json({4, 4, 4, 4}));
  EXPECT_EQ(zb["relative_peak"], 1);
  const nlohmann::json v = json({"--kind", "v-min", "--stages", "8", "--microbatches", "16"});
  EXPECT_EQ(v["chunks"], 2);
  EXPECT_EQ(v["relative_peak"], 0.5);
}

TEST(ScheduleCommand, TimesBelongToRanksOrStages) {
  const std::vector<std::string> same = {"--kind", "zb-v", "--stages", "2", "--microbatches", "6"};
  auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), same.begin(), same.end());
    return json(more)["makespan"].get<double>();
  };
  EXPECT_DOUBLE_EQ(with({"--forward", "2", "--backward-input", "2", "--backward-weight", "2"}), 2 * with({}));
  EXPECT_DOUBLE_EQ(with({"--forward", "0.5,0.5,0.5,0.5"}), with({}));
  EXPECT_GT(with({"--latency", "3"}), with({}));
  EXPECT_EQ(
      json({"--kind", "1f1b", "--stages", "1", "--microbatches", "1", "--norm", "2", "--step", "3"})["norm_and_step"],
      5);
}

TEST(ScheduleCommand, FilesAreWrittenAndReadAgain) {
  const std::string path = ::testing::TempDir() + "schedule_command", svg = path + ".svg";
  const nlohmann::json made = json({"--kind", "interleaved", "--stages", "3", "--microbatches", "5", "--chunks", "3",
                                    "--group", "2", "--save", path, "--svg", svg});
  EXPECT_EQ(read_schedule_file(path),
            generate({.kind = ScheduleKind::Interleaved, .ranks = 3, .microbatches = 5, .chunks = 3, .group = 2}));
  const nlohmann::json read = json({"--file", path});
  EXPECT_EQ(read["makespan"], made["makespan"]);
  EXPECT_EQ(read["peak_slots"], made["peak_slots"]);
  EXPECT_EQ(testing::read_whole(svg).substr(0, 4), "<svg");
  EXPECT_THROW(run({"--file", path, "--svg", "/nowhere/at/all"}), IoError);
  std::remove(path.c_str());
  std::remove(svg.c_str());
}

TEST(ScheduleCommand, SearchesUnderALimit) {
  const nlohmann::json found = json({"--search", "--stages", "2", "--microbatches", "4", "--memory-limit", "2"});
  EXPECT_EQ(found["optimal"], true);
  EXPECT_LE(*std::max_element(found["peak_slots"].begin(), found["peak_slots"].end()), 2);
  const nlohmann::json v =
      json({"--search", "--stages", "8", "--microbatches", "16", "--chunks", "2", "--memory-limit", "5"});
  EXPECT_EQ(v["optimal"], false);
  EXPECT_LE(v["relative_peak"], 5.0 / 8);
}

TEST(ScheduleCommand, WrongArgumentsSayWhatWouldFit) {
  const std::vector<std::string> base = {"--stages", "2", "--microbatches", "4"};
  const auto says = [&](std::vector<std::string> more, const std::string& what) {
    more.insert(more.begin(), base.begin(), base.end());
    const std::string found = complaint(more);
    EXPECT_NE(found.find(what), std::string::npos) << found;
  };
  says({}, "give --kind, --search or --file");
  says({"--kind", "zb"}, "there is no kind 'zb'; there are gpipe, 1f1b, ");
  says({"--kind", "1f1b", "--chunks", "2"}, "2 chunks: 1f1b has 1 a rank; interleaved has any number");
  says({"--kind", "zb-v", "--forward", "1,2,3"},
       "--forward has 3 times: give one (of a rank, which its stages share) or 4");
  says({"--kind", "zb-v", "--backward-weight", "-1"}, "--backward-weight = -1: a time is 0 or more");
  says({"--kind", "1f1b", "--latency", "nan"}, "--latency = nan");
  says({"--kind", "1f1b", "--search"}, "leave --kind out");
  says({"--kind", "1f1b", "--file", "x"}, "leave --kind and --search out");
  says({"--search", "--memory-limit", "0.5"}, "rank 0 has memory for 0 slots");
  says({"--search", "--memory-limit", "-1"}, "--memory-limit = -1: it is more than 0");
  says({"--kind", "gpipe", "--memory-limit", "3"}, "rank 0: F3: it makes 4 alive on the rank, whose limit is 3\n");
  EXPECT_NE(complaint({"--kind", "1f1b", "--microbatches", "1"}).find("--stages 0: there must be 1 or more"),
            std::string::npos);
  EXPECT_NE(complaint({"--kind", "1f1b", "--stages", "1"}).find("--microbatches 0: there must be 1 or more"),
            std::string::npos);
  EXPECT_EQ(complaint({"--kind", "1f1b", "--stages", "1000000", "--microbatches", "1000000"}),
            "schedule: --stages 1000000: must be from 1 to 16,384");
  EXPECT_NE(complaint({"--kind", "1f1b", "--stages", "1000", "--microbatches", "1000000"})
                .find("1000000000 passes: a schedule has at most 262,144"),
            std::string::npos);
  EXPECT_NE(complaint({"--file", "/nowhere"}).find("cannot read '/nowhere'"), std::string::npos);
}

TEST(ScheduleCommand, ADeadlockInAFileEndsWithCode2AndAnArrow) {
  const std::string path = ::testing::TempDir() + "schedule_deadlock";
  std::ofstream(path) << "tessera schedule 1\nmicrobatches 2\nplacement 0 1\n"
                         "rank 0: F0 SF0 RB0 B0 W0 F1 SF1 RB1 B1 W1 R N S\n"
                         "rank 1: RF0@1 F0@1 RF1@1 F1@1 B0@1 SB0@1 W0@1 B1@1 SB1@1 W1@1 R@1 N S\n";
  const testing::ProgramResult result = testing::run_program("schedule --file " + path);
  EXPECT_EQ(result.code, 2);
  EXPECT_NE(result.output.find("rank 0: B0: it waits for ever"), std::string::npos) << result.output;
  EXPECT_NE(result.output.find('^'), std::string::npos);
  std::remove(path.c_str());
}

}  // namespace
}  // namespace tessera
