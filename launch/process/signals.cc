#include "launch/process/signals.h"

#include <atomic>
#include <csignal>

namespace tessera {
namespace {

std::atomic<bool> requested = false;
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler may touch nothing else");

void note(int) { requested = true; }

}  // namespace

void note_save_signals() {
  struct sigaction action {};
  action.sa_handler = note;
  action.sa_flags = SA_RESTART;
  sigaction(SIGUSR1, &action, nullptr);
}

bool take_save_signal() { return requested.exchange(false); }

}  // namespace tessera
