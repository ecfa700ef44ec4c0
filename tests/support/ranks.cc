#include "tests/support/ranks.h"

#include "parallel/comm_threads.h"

namespace tessera::testing {

void run_ranks(int n, const std::function<void(Comm& world)>& body) { tessera::run_ranks(n, body); }

bool under_mpi() { return false; }

}  // namespace tessera::testing
