// Gives a hang a name: a thread that ends the process when nothing has moved for too long.
//
// A rank that waits for ever is noticed by nobody: mpirun waits with it. The watchdog prints one line that says which
// rank on which host, what it was doing, at which step and for how long, then calls _exit(86); mpirun takes the other
// ranks down and passes the code on, so a supervisor can start the run again.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>

namespace tessera {

class Watchdog {
 public:
  struct Options {
    double timeout_seconds = 600;  // of no progress; 0: no watchdog, no thread
    int rank = 0;
    std::string host;
  };

  // Watches from now on. Throws UsageError when the timeout is negative or not finite.
  explicit Watchdog(const Options& options);
  ~Watchdog();  // stops watching
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  // Something moved: `activity` begins, at `step`. activity must be a string that lives as long as the program (a
  // literal). Costs three stores and no system call: call it as often as you like, from one thread at a time.
  void progress(const char* activity, int64_t step) {
    activity_.store(activity, std::memory_order_relaxed);
    step_.store(step, std::memory_order_relaxed);
    beats_.store(beats_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
  }

 private:
  void watch();
  [[noreturn]] void bark(double seconds) const;

  Options options_;
  std::atomic<const char*> activity_{"starting"};
  std::atomic<int64_t> step_{0};
  std::atomic<uint64_t> beats_{0};
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;  // guarded by mutex_
  std::thread thread_;
};

}  // namespace tessera
