#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "launch/process/version.h"
#include "tests/support/program.h"

namespace tessera {
namespace {

// The program itself, in a shell.
struct Outcome {
  int code = -1;
  std::string output;  // both streams
};

Outcome shell(const std::string& command) {
  Outcome outcome;
  FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return outcome;
  for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) outcome.output.push_back(static_cast<char>(c));
  const int status = ::pclose(pipe);
  outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return outcome;
}

const std::string kProgram = testing::binary_dir() + "/tessera";

std::string mpirun(int ranks) {
  return "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 mpirun --oversubscribe --bind-to none -np " +
         std::to_string(ranks) + " ";
}

TEST(Program, HelpAndVersionAreNoErrors) {
  const Outcome help = shell(kProgram + " --help");
  EXPECT_EQ(help.code, 0);
  for (const char* command : {"train", "doctor", "Exit codes"}) {
    EXPECT_NE(help.output.find(command), std::string::npos) << command;
  }
  const Outcome version = shell(kProgram + " --version");
  EXPECT_EQ(version.code, 0);
  EXPECT_EQ(version.output, "tessera " + program_version() + "\n");
}

TEST(Program, AWrongCommandLineIsNamedAndEndsWith2) {
  const Outcome no_command = shell(kProgram);
  EXPECT_EQ(no_command.code, 2);
  EXPECT_EQ(no_command.output.rfind("tessera: error: ", 0), 0u) << no_command.output;
  const Outcome wrong_option = shell(kProgram + " doctor --colour");
  EXPECT_EQ(wrong_option.code, 2);
  EXPECT_NE(wrong_option.output.find("--colour"), std::string::npos) << wrong_option.output;
}

TEST(Program, OutputThatCannotBeWrittenIsNoSuccess) {
  for (const char* command : {" fields", " schedule --kind 1f1b --stages 2 --microbatches 4"}) {
    const Outcome outcome = shell("(" + kProgram + command + " >/dev/full)");
    EXPECT_EQ(outcome.code, 74) << command;
    EXPECT_NE(outcome.output.find("cannot write to standard output"), std::string::npos) << outcome.output;
  }
}

TEST(Program, RanksThatMakeTheSameMistakeSayItOnce) {
  const Outcome outcome = shell(mpirun(4) + kProgram + " no-such-command");
  EXPECT_EQ(outcome.code, 2) << outcome.output;
  const size_t first = outcome.output.find("tessera: error: rank 0 on ");
  ASSERT_NE(first, std::string::npos) << outcome.output;
  EXPECT_EQ(outcome.output.find("tessera: error: ", first + 1), std::string::npos) << outcome.output;
}

TEST(Program, HelpUnderMpirunIsPrintedOnce) {
  const Outcome outcome = shell(mpirun(3) + kProgram + " --version");
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.output, "tessera " + program_version() + "\n");
}

// libgomp says on standard error what it took from the environment when it was loaded.
TEST(Program, ThreadsSpinBrieflyUnlessTheUserSaysOtherwise) {
  const std::string report = "env -u OMP_WAIT_POLICY -u GOMP_SPINCOUNT OMP_DISPLAY_ENV=verbose ";
  const auto last_spin_count = [](const std::string& output) {
    const size_t begin = output.rfind("GOMP_SPINCOUNT = '");
    return begin == std::string::npos ? output : output.substr(begin, output.find('\n', begin) - begin);
  };
  const Outcome usual = shell(report + kProgram + " --version");
  EXPECT_EQ(usual.code, 0);
  EXPECT_EQ(last_spin_count(usual.output), "GOMP_SPINCOUNT = '1000'");
  const Outcome chosen = shell(report + "GOMP_SPINCOUNT=77 " + kProgram + " --version");
  EXPECT_EQ(last_spin_count(chosen.output), "GOMP_SPINCOUNT = '77'");
  const Outcome active = shell(report + "OMP_WAIT_POLICY=active " + kProgram + " --version");
  EXPECT_NE(last_spin_count(active.output), "GOMP_SPINCOUNT = '1000'");
}

// No file may grow beyond 201,000 bytes, as on a full disk: the tokens' temporary file (200,000 bytes) fits, the shard,
// which HDF5 writes, does not.
TEST(Program, AFullDiskUnderHdf5EndsWith74) {
  const std::string directory = ::testing::TempDir() + "tessera-full-disk-" + std::to_string(::getpid());
  std::filesystem::create_directories(directory);
  std::ofstream(directory + "/text.txt") << std::string(99999, 'x');
  const std::string build = kProgram + " data build --tokenizer bytes --validation-fraction 0 --input " + directory +
                            "/text.txt --output " + directory + "/shards";
  const Outcome outcome = shell("trap '' XFSZ; prlimit --fsize=201000 " + build);
  EXPECT_EQ(outcome.code, 74) << outcome.output;
  EXPECT_EQ(outcome.output.rfind("tessera: error: cannot write token shard " + directory, 0), 0u) << outcome.output;
  EXPECT_NE(outcome.output.find(": tokens: File too large\n"), std::string::npos) << outcome.output;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory))
    EXPECT_NE(entry.path().extension(), ".h5") << entry.path();
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace tessera
