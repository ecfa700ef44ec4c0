// What ranks that are threads of one process wait by: who waits for what, who has failed, and whether anybody is left
// to wake the others. Internal to comm_threads.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <deque>
#include <mutex>
#include <string>

#include "parallel/comm/comm_threads.h"

namespace tessera {

// What all ranks of one run share. One mutex for all: it is never held while data are moved.
struct ThreadWorld {
  // Where a rank is: what its peers must agree with, and what an error says.
  struct Call {
    const char* what = "";
    int64_t bytes = 0;
    int detail = 0;  // root, dtype, peer: whatever else must agree
    bool operator==(const Call& other) const {
      return std::strcmp(what, other.what) == 0 && bytes == other.bytes && detail == other.detail;
    }
  };
  // The error when two ranks of a group make different calls.
  static std::string at_odds(const std::string& group, int a, const Call& call_a, int b, const Call& call_b) {
    const auto describe = [](int who, const Call& c) {
      return "rank " + std::to_string(who) + " calls " + c.what + " of " + std::to_string(c.bytes) + " bytes (" +
             std::to_string(c.detail) + ")";
    };
    return "the ranks of group " + group + " are at odds: " + describe(a, call_a) + ", " + describe(b, call_b);
  }

  struct Rank {
    std::condition_variable wake;
    bool waiting = false;
    bool finished = false;
    const std::string* group = nullptr;  // of the call in which it waits
    const char* what = "";
  };

  explicit ThreadWorld(int n) : ranks(n) {}

  std::mutex mutex;
  std::deque<Rank> ranks;
  bool failed = false;
  std::string failure;

  void wake(int rank) {
    ranks[rank].waiting = false;
    ranks[rank].wake.notify_all();
  }

  // The first failure is the one that peers hear of.
  void fail(const std::string& message) {
    if (failed) return;
    failed = true;
    failure = message;
    for (size_t r = 0; r < ranks.size(); ++r) wake(static_cast<int>(r));
  }

  void check_peers() const {
    if (failed) throw PeerFailed(failure);
  }

  // Some rank waits, and nobody is left to wake it.
  bool stuck() const {
    bool waited_for = false;
    for (const Rank& rank : ranks) {
      if (!rank.finished && !rank.waiting) return false;
      waited_for |= rank.waiting;
    }
    return waited_for;
  }
  std::string deadlock() const {
    std::string text = "deadlock: every rank waits for another or has ended";
    for (size_t r = 0; r < ranks.size(); ++r) {
      text += "\n  rank " + std::to_string(r) +
              (ranks[r].finished ? " has ended"
                                 : std::string(" waits in ") + ranks[r].what + " of group " + *ranks[r].group);
    }
    return text;
  }

  // Blocks `rank` until ready(), which whoever makes it true announces by wake(rank). `abortable` waits end with
  // PeerFailed when a rank fails; the others are for peers that are sure to come.
  enum class Abort { Yes, No };
  template <class Ready>
  void wait(std::unique_lock<std::mutex>& lock, int rank, const std::string& group, const char* what, Abort abort,
            Ready ready) {
    Rank& self = ranks[rank];
    while (!ready()) {
      if (abort == Abort::Yes) check_peers();
      self.waiting = true;
      self.group = &group;
      self.what = what;
      if (!failed && stuck()) {
        const InternalError error(deadlock());
        self.waiting = false;
        throw error;
      }
      self.wake.wait(lock, [&] { return !self.waiting; });
    }
  }
};

}  // namespace tessera
