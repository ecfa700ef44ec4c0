// What signals ask of a run. SIGUSR1: save and go on. SIGTERM, SIGINT, SIGHUP and SIGUSR2: save and end, as schedulers
// and people ask; a second one ends the process at once. mpirun passes SIGUSR1 and SIGUSR2 on to every rank.
#pragma once

#include <string>

namespace tessera {

// While it lives, the signals are noted instead of ending the process; then they do what they did before. One a
// process: of several (ranks that are threads), the last one gone gives the signals back.
class SignalRequests {
 public:
  enum class Speech { Silent, SaysThatItEnds };  // on standard error, at the moment when the first signal to end comes

  explicit SignalRequests(Speech speech);
  ~SignalRequests();
  SignalRequests(const SignalRequests&) = delete;
  SignalRequests& operator=(const SignalRequests&) = delete;

  // Whether SIGUSR1 came since the last call. Of ranks that are threads of one process, one learns of it.
  bool take_save();
  // The signal that asked to end; 0: none did.
  int end() const;
};

// "SIGTERM".
std::string signal_name(int number);

// From now on signals to end do so at once, as if nobody had asked to note them: for a process that ends in failure.
void end_at_once_by_signals();

}  // namespace tessera
