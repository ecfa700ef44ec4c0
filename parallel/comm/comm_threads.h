// Ranks as threads of one process: the real code path under a debugger or a sanitizer, and fast tests.
//
// A rank that finds its group at odds (other call, other size) throws; ranks that wait for each other for ever are
// noticed, and the error says what each of them waits for.
#pragma once

#include <functional>

#include "parallel/comm/comm.h"

namespace tessera {

// What a rank gets out of any call when another rank of its world has failed; it says which, and why.
struct PeerFailed : Error {
  explicit PeerFailed(const std::string& message) : Error(ExitCode::Internal, message) {}
};

// Calls body on n threads, each with its rank of one world, and returns when all have ended. When a rank throws, every
// other rank's next call (or the one in which it waits) throws PeerFailed, in this world and in all groups split from
// it; what the lowest rank threw that failed by itself is then rethrown here.
void run_ranks(int n, const std::function<void(Comm& world)>& body);

}  // namespace tessera
