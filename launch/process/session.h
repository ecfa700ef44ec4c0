// A rank's place in its job: how many ranks there are, and how many threads this one may use.
#pragma once

#include <functional>
#include <string>

#include "parallel/comm/comm.h"

namespace tessera {

// Where a rank stands among those of its host.
struct LocalRank {
  int rank = 0;
  int ranks = 1;
  bool threads = false;  // they are threads of one process
};

struct Session {
  Comm& world;
  int threads;          // of this rank
  std::string warning;  // about threads against cores; empty when all is well
  LocalRank local = {};
};

struct SessionOptions {
  int threads = 0;      // of a rank; 0: an equal share of this host's cores
  int local_ranks = 0;  // ranks as threads of this process, for debugging; 0: as launched
};

// Runs body on every rank of the job and returns what it returned here: over MPI when the process was launched by
// mpirun or srun, else as one rank, or as several ranks that are threads of this process. Throws what body throws.
int run_session(const SessionOptions& options, const std::function<int(Session&)>& body);

}  // namespace tessera
