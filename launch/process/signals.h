// SIGUSR1 asks a run to save a checkpoint and go on. mpirun passes it on to every rank.
#pragma once

namespace tessera {

// From now on SIGUSR1 is noted instead of ending the process.
void note_save_signals();

// Whether SIGUSR1 came since the last call. Of ranks that are threads of one process, one learns of it.
bool take_save_signal();

}  // namespace tessera
