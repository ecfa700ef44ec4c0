// Disks that are full or read-only, with real file systems: training goes on, and the older checkpoints stay good. Each
// test mounts in a namespace of its own, which takes root; without it, it is skipped and says so.
#include <fmt/format.h>

#include "tests/launch/run/small_run.h"

namespace tessera::testing {
namespace {

class DiskFaults : public SmallRun {
 protected:
  void SetUp() override {
    SmallRun::SetUp();
    if (IsSkipped()) return;
    if (run_shell("unshare -m true").code != 0) GTEST_SKIP() << "mounting takes root";
  }
  // Runs the commands in a namespace of their own, where the run directory is another mount.
  static ProgramResult in_namespace(const std::string& commands) {
    return run_shell(fmt::format("unshare -m sh -c '{}'", commands));
  }
  static size_t count(const std::string& text, const std::string& part) {
    size_t n = 0;
    for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
    return n;
  }
};

TEST_F(DiskFaults, AFullDiskCostsTheSaveAndNothingElse) {
  // Room for two checkpoints of 1.06 MiB; retention deletes an old one only behind a newer one.
  std::filesystem::create_directories(root_ / "full");
  const std::string run = path("full"), train = program_command(arguments("full"), 2);
  const ProgramResult result = in_namespace(
      fmt::format("mount -t tmpfs -o size=2600k none {0}; {1}; echo first code $?; {2}; echo verify code $?; "
                  "mount -o remount,size=16m {0}; {1}; echo second code $?; {2}; echo verify code $?",
                  run, train, program_command("checkpoint verify " + run)));
  const std::string& output = result.output;
  EXPECT_EQ(count(output, "saved " + run), 2u + 8u) << output;  // steps 4 and 8; then from 12 on
  EXPECT_NE(output.find("step 12 was not saved, training goes on"), std::string::npos) << output;
  EXPECT_NE(output.find("make room or keep fewer"), std::string::npos) << output;
  EXPECT_NE(output.find("the last checkpoint could not be written"), std::string::npos) << output;
  EXPECT_NE(output.find("first code 74"), std::string::npos) << output;
  EXPECT_NE(output.find("at step 8\n"), std::string::npos) << "resumes from the older good one: " << output;
  EXPECT_NE(output.find("second code 0"), std::string::npos) << output;
  EXPECT_EQ(count(output, "verify code 0"), 2u) << output;
}

TEST_F(DiskFaults, ADirectoryThatOneRankCannotWriteToCostsTheSaveAndNothingElse) {
  ASSERT_EQ(run_program(arguments("readonly", "--set parallel.tp=2 --set run.steps=8"), 2).code, 0);
  const std::string folder = path("readonly/checkpoints");
  const std::string tessera = program_command(arguments("readonly", "--set parallel.tp=2"));
  const ProgramResult result =
      run_shell(fmt::format("{} {} : -np 1 unshare -m sh -c 'mount --bind {} {}; mount -o remount,bind,ro {}; exec {}'",
                            mpirun(1), tessera, folder, folder, folder, tessera));
  EXPECT_EQ(result.code, 74) << result.output;
  EXPECT_NE(result.output.find("at step 8\n"), std::string::npos) << result.output;
  EXPECT_NE(result.output.find("step 40/40"), std::string::npos) << result.output;
  EXPECT_NE(result.output.find("not saved: rank 1: cannot create"), std::string::npos) << result.output;
  EXPECT_NE(result.output.find("Read-only file system"), std::string::npos) << result.output;
  EXPECT_EQ(steps("readonly"), (std::vector<int64_t>{4, 8}));
  EXPECT_EQ(run_program(arguments("readonly", "--set parallel.tp=2"), 2).code, 0);
  EXPECT_EQ(newest("readonly"), 40);
}

}  // namespace
}  // namespace tessera::testing
