#include "scaling/process.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "scaling/text_file.h"

namespace tessera {
namespace {

TEST(Process, SaysHowItEnded) {
  const std::string log = ::testing::TempDir() + "process_test.log";
  std::filesystem::remove(log);
  Process fine({"sh", "-c", "echo out; echo error >&2; exit 3"}, log);
  EXPECT_EQ(fine.wait(), 3);
  EXPECT_EQ(fine.poll(), 3);
  EXPECT_EQ(read_file(log), "out\nerror\n");
  Process killed({"sleep", "60"}, log);
  EXPECT_FALSE(killed.poll().has_value());
  killed.signal(15);
  EXPECT_EQ(killed.wait(), 128 + 15);
  EXPECT_EQ(Process({"/nowhere/program"}, log).wait(), 127);
  std::string output;
  EXPECT_EQ(run_process({"printf", "a b"}, output), 0);
  EXPECT_EQ(output, "a b");
}

}  // namespace
}  // namespace tessera
