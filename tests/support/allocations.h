// Counts the allocations of this process: a step must allocate nothing after warm-up.
#pragma once

#include <cstdint>

namespace tessera::testing {

// Calls of operator new (in all its forms) so far, by all threads.
int64_t allocations();

}  // namespace tessera::testing
