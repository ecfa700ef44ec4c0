// What a run says, through the command line.
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "scaling/record_file.h"
#include "scaling/training_record.pb.h"
#include "tests/launch/run/small_run.h"

namespace tessera::testing {
namespace {

class RunConsole : public SmallRun {
 protected:
  // The line that holds `words`.
  static std::string line_with(const std::string& text, const std::string& words) {
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);)
      if (line.find(words) != std::string::npos) return line;
    return "";
  }
};

TEST_F(RunConsole, TheMemoryTableIsOfAllRanks) {
  const ProgramResult result =
      run_program(arguments("table", "--set run.steps=2 --set parallel.pp=2 --set model.num_hidden_layers=2"), 2);
  ASSERT_EQ(result.code, 0) << result.output;
  EXPECT_NE(line_with(result.output, "memory of a rank").find("worst"), std::string::npos) << result.output;
  // The first stage receives nothing that has no place yet; the last one does.
  EXPECT_NE(line_with(result.output, "messages between stages").find("KiB"), std::string::npos) << result.output;
  std::ifstream file(metrics("table"));
  std::string line;
  std::getline(file, line);
  const auto values = nlohmann::json::parse(line);
  for (const char* key :
       {"compute_seconds", "bubble_seconds", "data_seconds", "optimizer_seconds", "host_seconds", "memory_bytes"})
    EXPECT_GE(values["worst"][key].get<double>(), 0.999 * values["mean"][key].get<double>()) << key;
  EXPECT_GT(values["worst"]["bubble_seconds"], 0);
  EXPECT_EQ(values["slots"], 4 * 32);
}

TEST_F(RunConsole, SizesAgreeWithTheListOfCheckpoints) {
  const ProgramResult result = train("sizes", "--set run.steps=2");
  ASSERT_EQ(result.code, 0) << result.output;
  const std::string saved = line_with(result.output, "saved ");
  const std::string size = saved.substr(saved.rfind('(') + 1, saved.rfind(')') - saved.rfind('(') - 1);
  const ProgramResult list = run_program("checkpoint list " + path("sizes"));
  EXPECT_NE(list.output.find(size), std::string::npos) << saved << "\n" << list.output;
  EXPECT_EQ(saved.find("in 0s"), std::string::npos) << saved;
}

TEST_F(RunConsole, ThePeakIsSaidAndKeptAndUsedAgain) {
  const std::string more = "--set logging.measure_peak=true --set run.steps=";
  const ProgramResult first = train("peak", more + "2");
  ASSERT_EQ(first.code, 0) << first.output;
  EXPECT_NE(line_with(first.output, "MFU is relative to").find("measured now"), std::string::npos) << first.output;
  TrainingRecord before, after;
  read_record(path("peak"), before);
  EXPECT_GT(before.peak().measured(), 1e8);
  const ProgramResult second = train("peak", more + "3");
  ASSERT_EQ(second.code, 0) << second.output;
  EXPECT_NE(line_with(second.output, "MFU is relative to").find("in the run's record"), std::string::npos)
      << second.output;
  read_record(path("peak"), after);
  EXPECT_EQ(after.peak().measured(), before.peak().measured());
}

TEST_F(RunConsole, AnotherPrecisionIsSaid) {
  ASSERT_EQ(train("precision", "--set run.steps=2").code, 0);
  const ProgramResult result = train("precision", "--set run.steps=4 --set run.compute_dtype=BF16");
  ASSERT_EQ(result.code, 0) << result.output;
  EXPECT_NE(result.output.find("trained in F32 until step 2, and goes on in BF16"), std::string::npos) << result.output;
}

TEST_F(RunConsole, DivergenceSaysWhatToTry) {
  const ProgramResult result = train("diverged", "--set lr_schedule.learning_rate=1e30");
  EXPECT_EQ(result.code, 17);
  for (const char* words : {"what may help", "lr_schedule.learning_rate", "lr_schedule.warmup_steps = 2",
                            "optimizer.max_grad_norm (it is 1)"})
    EXPECT_NE(result.output.find(words), std::string::npos) << words << "\n" << result.output;
  TrainingRecord record;
  read_record(path("diverged"), record);
  EXPECT_EQ(record.reason().find("what may help"), std::string::npos);
}

TEST_F(RunConsole, ProcessesAreNamedAsTheProgram) {
  std::string name;
  disturb_program(arguments("named", "--set run.steps=100000 --set checkpoint.every_steps=0"), 0, metrics("named"),
                  "\"step\":20,", [&](int process) {
                    std::getline(std::ifstream("/proc/" + std::to_string(process) + "/comm"), name);
                    kill(process, SIGTERM);
                  });
  EXPECT_EQ(name, "tessera");
}

}  // namespace
}  // namespace tessera::testing
