#include "tests/support/ranks.h"

#include <mpi.h>

#include <chrono>
#include <cstdio>
#include <exception>
#include <thread>

#include "parallel/comm/comm_mpi.h"
#include "parallel/comm/comm_threads.h"

namespace tessera::testing {
namespace {

// The globals of the tests: set by main before any test runs.
MpiSession* mpi = nullptr;
std::function<void(Comm&, const std::function<void(Comm&)>&)> around;
thread_local Context* linked = nullptr;

// Waits until all processes have come here. After a failure of its own a rank waits some seconds only: a peer that
// stays away is waiting for it in a collective, for ever.
void meet(bool failed, const char* what) {
  MPI_Request request;
  MPI_Ibarrier(MPI_COMM_WORLD, &request);
  if (!failed) {
    MPI_Wait(&request, MPI_STATUS_IGNORE);
    return;
  }
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  for (int done = 0; done == 0;) {
    MPI_Test(&request, &done, MPI_STATUS_IGNORE);
    if (done == 0 && std::chrono::steady_clock::now() > deadline) {
      std::fprintf(stderr, "a rank failed while others wait for it: %s\n", what);
      MpiSession::abort(1);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

void run_over_mpi(int n, const std::function<void(Comm& world)>& body) {
  int size = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  if (size != n) return;
  const std::unique_ptr<Comm> world = mpi->world();
  std::exception_ptr error;
  std::string what;
  try {
    body(*world);
  } catch (const std::exception& e) {
    error = std::current_exception();
    what = e.what();
  } catch (...) {
    error = std::current_exception();
  }
  meet(error != nullptr, what.c_str());
  const double failures = world->sum(error ? 1.0 : 0.0);
  if (error) std::rethrow_exception(error);
  if (failures > 0) throw InternalError("another rank failed");
}

}  // namespace

void run_ranks(int n, const std::function<void(Comm& world)>& body) {
  const auto wrapped = [&](Comm& world) { around ? around(world, body) : body(world); };
  if (mpi == nullptr)
    tessera::run_ranks(n, wrapped);
  else
    run_over_mpi(n, wrapped);
}

void wrap_ranks(std::function<void(Comm&, const std::function<void(Comm&)>&)> wrap) { around = std::move(wrap); }

Context* linked_context() { return linked; }
void set_linked_context(Context* context) { linked = context; }

bool under_mpi() { return mpi != nullptr; }

void use_mpi(MpiSession& session) { mpi = &session; }

MpiSession* mpi_session() { return mpi; }

}  // namespace tessera::testing
