// Work that may fail on one rank only: all ranks learn of it before any of them goes on, so none waits for ever in the
// next collective. All calls are collective over world; what the work does is not.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "parallel/comm/comm.h"
#include "tensor/check.h"
#include "tensor/context/threads.h"

namespace tessera {

struct RankFailure {
  ExitCode code = ExitCode::Internal;
  std::string message;
};

// Runs work on this rank. When it threw on any rank, the failure of the lowest such rank, on every rank; its message
// begins with "rank R: " when there are several ranks.
std::optional<RankFailure> try_together(Comm& world, FunctionRef<void()> work);

// Throws the subclass of Error that the failure was; the message of a failure of rank 0, which reports for all, without
// its number.
[[noreturn]] void throw_failure(const RankFailure& failure);

// try_together, then throw_failure: the same error on every rank.
void together(Comm& world, FunctionRef<void()> work);

// The root's text, on every rank.
std::string broadcast_text(Comm& world, const std::string& text, int root);

// Every rank's text, by rank, on every rank.
std::vector<std::string> all_texts(Comm& world, const std::string& text);

// A text from one rank to another; both wait.
void send_text(Comm& world, const std::string& text, int to);
std::string receive_text(Comm& world, int from);

}  // namespace tessera
