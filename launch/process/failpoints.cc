#include "launch/process/failpoints.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <csignal>
#include <memory>
#include <string>

#include "tensor/check.h"

namespace tessera {

Failpoint failpoint_of(const Environment& environment) {
  const char* value = environment("TESSERA_FAIL");
  if (value == nullptr || *value == '\0') return {};
  const std::string text = value;
  const size_t colon = text.find(':');
  const std::string place = text.substr(0, colon);
  int times = 1;
  if (colon != std::string::npos) {
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data() + colon + 1, end, times);
    if (error != std::errc() || stop != end || times < 1) times = 0;
  }
  if (times == 0 || std::find(kFailpoints.begin(), kFailpoints.end(), place) == kFailpoints.end()) {
    throw UsageError(fmt::format(
        "TESSERA_FAIL={} is no failpoint: it is NAME or NAME:N, where N counts from 1 and NAME is one of {}", text,
        fmt::join(kFailpoints, ", ")));
  }
  const auto left = std::make_shared<std::atomic<int>>(times);
  return [place, left](std::string_view reached) {
    if (reached == place && --*left == 0) kill(getpid(), SIGKILL);
  };
}

}  // namespace tessera
