#include "scaling/hardware.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "scaling/hardware.pb.h"
#include "tensor/check.h"
#include "tests/support/program.h"

namespace tessera {
namespace {

TEST(Hardware, EveryDescriptionIsReadAndSaysItsSource) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(testing::source_dir() + "/configs/hardware")) {
    HardwareConfig hardware;
    read_hardware(entry.path(), hardware);
    EXPECT_FALSE(hardware.name().empty()) << entry.path();
    EXPECT_FALSE(hardware.source().empty()) << entry.path();
    EXPECT_GT(hardware.bf16_flops(), 1e14) << entry.path();
    EXPECT_GT(hardware.memory_bytes(), 1e10) << entry.path();
    // What was measured stays under the sheet.
    EXPECT_LT(hardware.achieved_bf16_flops(), hardware.bf16_flops()) << entry.path();
    ++count;
  }
  EXPECT_GE(count, 6);
  HardwareConfig h100;
  read_hardware(testing::source_dir() + "/configs/hardware/h100.textproto", h100);
  EXPECT_EQ(h100.bf16_flops(), 989e12);
}

TEST(Hardware, MistakesAreToldWithTheirPlace) {
  const auto message = [](const std::string& text) -> std::string {
    HardwareConfig hardware;
    try {
      parse_hardware(text, "x.textproto", hardware);
    } catch (const UsageError& error) {
      return error.what();
    }
    return "nothing was thrown";
  };
  EXPECT_NE(message("name: \"x\"\nflop: 3\n").find("x.textproto:2:"), std::string::npos)
      << message("name: \"x\"\nflop: 3\n");
  EXPECT_NE(message("bf16_flops: -1").find("bf16_flops = -1"), std::string::npos);
  EXPECT_NE(message("bf16_flops: 1e15 memory_bytes: -3").find("memory_bytes = -3: must be above 0"), std::string::npos);
  HardwareConfig hardware;
  EXPECT_THROW(read_hardware("/nowhere.textproto", hardware), IoError);
}

}  // namespace
}  // namespace tessera
