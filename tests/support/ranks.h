// Runs a test's body over several ranks: as threads, or over MPI when mpirun started the test. The same sources run
// both ways.
#pragma once

#include <functional>

#include "parallel/comm.h"

namespace tessera::testing {

// Calls body on n ranks. Under mpirun it runs when the world has n ranks, and otherwise the call does nothing: what the
// body finds must be checked inside the body (its variables are not shared between processes).
void run_ranks(int n, const std::function<void(Comm& world)>& body);

// True when the test was started by mpirun. Tests of threads alone skip themselves then.
bool under_mpi();

}  // namespace tessera::testing
