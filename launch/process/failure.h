// How the program ends when something is wrong: one line on standard error, the right exit code, and no rank left
// waiting for one that is gone.
#pragma once

#include <exception>
#include <string>

#include "tensor/check.h"

namespace tessera {

struct Failure {
  ExitCode code = ExitCode::Internal;
  std::string message;
};

// What an exception means: an Error has its own code; running out of memory and all others are internal (1). Where a
// GPU's memory was too little, what takes less of it is said too.
Failure failure_of(const std::exception_ptr& error);

// "tessera: error: MESSAGE", or under a launcher with several ranks "tessera: error: rank 3 on node7: MESSAGE".
std::string failure_line(const Failure& failure, int rank, int ranks, const std::string& host);

// Prints the line and ends the job. While MPI is up this does not return: MPI_Abort takes the other ranks down with
// the failure's code. Otherwise returns the code for main to return; a launcher then takes the other ranks down.
//
// Most mistakes (a wrong config, a missing file) are found by all ranks at the same moment. So rank 0 speaks at once,
// and each other rank first waits a little, longer the higher its rank: when a rank before it has ended the job, it is
// gone before it would say the same again.
int end_in_failure(const Failure& failure);

}  // namespace tessera
