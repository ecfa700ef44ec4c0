#include "launch/process/waiting.h"

#include <unistd.h>

#include <cstdlib>

namespace tessera {

void bound_spinning(char** argv) {
  if (std::getenv("OMP_WAIT_POLICY") != nullptr || std::getenv("GOMP_SPINCOUNT") != nullptr) return;
  // Some tens of microseconds, what a futex takes to put a thread to sleep and wake it (docs/BENCHMARKS.md).
  ::setenv("GOMP_SPINCOUNT", "1000", 1);
  ::execv("/proc/self/exe", argv);
  // Only without /proc: the program works all the same, and threads spin for longer.
}

}  // namespace tessera
