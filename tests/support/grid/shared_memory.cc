// Operands of tests on the emulated device lie in the host's memory (tests/support/device.h).
#include <cstdlib>

#include "tests/support/device.h"
#include "tests/support/grid/streams.h"

namespace tessera::testing {

void* allocate_shared(size_t bytes) { return std::malloc(bytes); }

void free_shared(void* data) {
  grid::finish_own_streams();
  std::free(data);
}

void settle() {
  grid::finish_own_streams();
  grid::check_own_streams();
}

}  // namespace tessera::testing
