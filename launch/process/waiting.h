// How threads wait for one another on cores that others may need: other ranks, other threads, other programs.
//
// OpenMP's runtime (libgomp) lets a thread that waits spin for 300,000 rounds before it sleeps, several milliseconds.
// Where it has a core of its own that wastes nothing; where threads outnumber the cores it keeps the one that it waits
// for from running. Spinning for as long as it takes to sleep and wake up costs at most twice the better of the two,
// whoever shares the machine. (Ranks that wait give up their core: parallel/comm/comm_mpi.h.)
#pragma once

namespace tessera {

// Bounds the spinning, unless the user has set OMP_WAIT_POLICY or GOMP_SPINCOUNT. libgomp reads them when it is loaded,
// before main, so this sets GOMP_SPINCOUNT and starts the program again in the same process; then it does not return.
// To be called first in main, with its arguments.
void bound_spinning(char** argv);

}  // namespace tessera
