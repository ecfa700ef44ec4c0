// Runs a test's body over several ranks: as threads, or over MPI when mpirun started the test. The same sources run
// both ways.
#pragma once

#include <functional>

#include "parallel/comm/comm.h"
#include "tensor/context/context.h"

namespace tessera {
class MpiSession;
}

namespace tessera::testing {

// Calls body on n ranks. Under mpirun it runs when the world has n ranks, and otherwise the call does nothing: what the
// body finds must be checked inside the body (its variables are not shared between processes).
//
// Throws what body threw: under threads that of the lowest rank that failed, under MPI this rank's own, or an
// InternalError when only others threw. Under MPI the job is ended when a rank has thrown and another does not come to
// the body's end.
void run_ranks(int n, const std::function<void(Comm& world)>& body);

// For main: all later bodies run within this, on each rank.
void wrap_ranks(std::function<void(Comm& world, const std::function<void(Comm& world)>& body)> wrap);

// What a wrap gives its body: the context whose device's tensors the rank's groups move. Null without one.
Context* linked_context();
void set_linked_context(Context* context);

// True when the test was started by mpirun. Tests of threads alone skip themselves then.
bool under_mpi();

// For main: all later run_ranks go over this session.
void use_mpi(MpiSession& session);

// The session under mpirun; null otherwise.
MpiSession* mpi_session();

}  // namespace tessera::testing
