#include "launch/process/watchdog.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "tensor/check.h"

namespace tessera {

Watchdog::Watchdog(const Options& options) : options_(options) {
  if (!std::isfinite(options_.timeout_seconds) || options_.timeout_seconds < 0) {
    throw UsageError(
        fmt::format("watchdog.timeout_seconds = {} must be a positive number of seconds, or 0 for no "
                    "watchdog",
                    options_.timeout_seconds));
  }
  if (options_.timeout_seconds > 0) thread_ = std::thread([this] { watch(); });
}

Watchdog::~Watchdog() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void Watchdog::watch() {
  using Clock = std::chrono::steady_clock;
  const std::chrono::duration<double> timeout(options_.timeout_seconds);
  // Looking often enough that the line comes at most a tenth of the timeout late.
  const std::chrono::duration<double> interval = std::min(timeout / 10, std::chrono::duration<double>(1));
  uint64_t seen = beats_.load(std::memory_order_acquire);
  std::chrono::duration<double> idle(0);
  Clock::time_point looked = Clock::now();
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, interval, [this] { return stop_; })) {
    const Clock::time_point now = Clock::now();
    // When the whole process stood still (SIGSTOP, a debugger), that time says nothing about the other threads.
    idle += std::min<std::chrono::duration<double>>(now - looked, interval * 2);
    looked = now;
    const uint64_t beats = beats_.load(std::memory_order_acquire);
    if (beats != seen) {
      seen = beats;
      idle = idle.zero();
    } else if (idle >= timeout) {
      bark(idle.count());
    }
  }
}

void Watchdog::bark(double seconds) const {
  // Nothing here may wait for a lock that a hung thread could hold: no iostream, no allocation, one system call.
  char line[512];
  const int size = std::snprintf(
      line, sizeof(line), "tessera: watchdog: rank %d on %s: no progress for %.1f s in '%s' at step %lld\n",
      options_.rank, options_.host.c_str(), seconds, activity_.load(std::memory_order_relaxed),
      static_cast<long long>(step_.load(std::memory_order_relaxed)));
  if (size > 0) {
    const auto length = std::min(static_cast<size_t>(size), sizeof(line) - 1);
    [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line, length);
  }
  ::_exit(static_cast<int>(ExitCode::Watchdog));
}

}  // namespace tessera
