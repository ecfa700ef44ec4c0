#include "launch/process/signals.h"

#include <fmt/format.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <mutex>

namespace tessera {
namespace {

constexpr std::array kEnding = {SIGTERM, SIGINT, SIGHUP, SIGUSR2};

std::atomic<bool> save_requested = false;
std::atomic<int> end_requested = 0;
std::atomic<int64_t> end_requested_at = 0;  // nanoseconds
std::atomic<bool> speaks = false;
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<int64_t>::is_always_lock_free,
              "a signal handler may touch nothing else");

std::mutex users_mutex;
int users = 0;                                      // guarded by users_mutex
std::array<struct sigaction, kEnding.size()> ends;  // what the signals did before; guarded by users_mutex
struct sigaction saves;

int64_t nanoseconds() {
  struct timespec now {};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{1'000'000'000} * now.tv_sec + now.tv_nsec;
}

void note_save(int) { save_requested = true; }

// Only calls that a signal handler may make.
void note_end(int number) {
  // Launchers and terminals may send one wish twice: to the process and to its group.
  constexpr int64_t kOneWish = 200'000'000;
  int none = 0;
  if (end_requested.compare_exchange_strong(none, number)) {
    end_requested_at = nanoseconds();
    constexpr char kLine[] =
        "tessera: told to end (by a person, a scheduler, or a launcher that has lost another rank): saves after this "
        "step and ends; told again, it ends at once\n";
    if (!speaks) return;
    [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, kLine, sizeof(kLine) - 1);
    return;
  }
  if (nanoseconds() - end_requested_at < kOneWish) return;
  ::signal(number, SIG_DFL);
  ::raise(number);  // It is delivered when this handler returns.
}

}  // namespace

SignalRequests::SignalRequests(Speech speech) {
  const std::lock_guard lock(users_mutex);
  if (speech == Speech::SaysThatItEnds) speaks = true;
  if (users++ > 0) return;
  save_requested = false;
  end_requested = 0;
  struct sigaction action {};
  action.sa_flags = SA_RESTART;
  action.sa_handler = note_save;
  ::sigaction(SIGUSR1, &action, &saves);
  action.sa_handler = note_end;
  for (size_t i = 0; i < kEnding.size(); ++i) {
    ::sigaction(kEnding[i], &action, &ends[i]);
    // nohup and shells in the background let a signal be ignored: that wish stays.
    if (ends[i].sa_handler == SIG_IGN) ::sigaction(kEnding[i], &ends[i], nullptr);
  }
}

SignalRequests::~SignalRequests() {
  const std::lock_guard lock(users_mutex);
  if (--users > 0) return;
  speaks = false;
  ::sigaction(SIGUSR1, &saves, nullptr);
  for (size_t i = 0; i < kEnding.size(); ++i) ::sigaction(kEnding[i], &ends[i], nullptr);
}

bool SignalRequests::take_save() { return save_requested.exchange(false); }

int SignalRequests::end() const { return end_requested; }

std::string signal_name(int number) {
  const char* name = ::sigabbrev_np(number);
  return name == nullptr ? fmt::format("signal {}", number) : fmt::format("SIG{}", name);
}

void end_at_once_by_signals() {
  for (const int number : kEnding) {
    struct sigaction now {};
    if (::sigaction(number, nullptr, &now) == 0 && now.sa_handler == note_end) ::signal(number, SIG_DFL);
  }
}

}  // namespace tessera
