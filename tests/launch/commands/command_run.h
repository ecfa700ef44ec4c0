// Runs a command inside the test's process, from the words of its command line to its exit code.
#pragma once

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "launch/commands/options.h"

namespace tessera::testing {

struct CommandRun {
  int code = -1;
  std::string out, err;

  nlohmann::json last_line() const {
    const size_t end = out.find_last_not_of('\n'), begin = out.rfind('\n', end);
    return nlohmann::json::parse(out.substr(begin == std::string::npos ? 0 : begin + 1));
  }
  bool has(const std::string& text) const { return out.find(text) != std::string::npos; }
};

// `add` puts the command on the line (launch/commands/command.h). What the command throws passes through.
inline CommandRun run_command(void (*add)(Command&), const std::vector<std::string>& words) {
  CommandLine line;
  Command program = line.program();
  add(program);
  const std::function<int()> body = line.read(words);
  CommandRun run;
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  const auto captured = [&] {
    std::fflush(stdout);
    run.out = ::testing::internal::GetCapturedStdout();
    run.err = ::testing::internal::GetCapturedStderr();
  };
  try {
    run.code = body();
  } catch (...) {
    captured();
    throw;
  }
  captured();
  return run;
}

}  // namespace tessera::testing
