// What the tests' own libnccl (nccl.cc) keeps of groups of ranks and of the calls that they have under way. Guarded by
// the device's mutex, all of it.
#pragma once

#include <nccl.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/grid/streams.h"

namespace tessera::grid::nccl {

struct Group;

// What was called and is not in its stream before the ranks are connected.
struct Call {
  cudaStream_t stream;
  std::function<bool()> step;  // done when it returns true
  std::function<bool()> connected;
};

// One rank's part of a group.
struct Member : std::enable_shared_from_this<Member> {
  Member(std::shared_ptr<Group> of, int own_rank) : group(std::move(of)), rank(own_rank) {}

  std::shared_ptr<Group> group;
  int rank;
  int64_t calls = 0;   // collectives so far
  int64_t queued = 0;  // calls that are not done
  bool aborted = false;
  bool finalized = false;
  std::optional<Call> call;
  bool told = true;            // that the last call was under way
  ncclComm_t* part = nullptr;  // of the split that is under way
};

// One collective: each rank's part of it comes when the rank's stream does.
struct Meeting {
  explicit Meeting(size_t ranks) : in(ranks), calls(ranks) {}

  std::vector<const void*> in;
  std::vector<std::string> calls;
  size_t arrived = 0, made = 0, left = 0;
};

struct Message {
  const void* data;
  size_t bytes;
  bool taken = false;
};

struct Group {
  explicit Group(size_t ranks) : members(ranks), collective(ranks), streams(ranks), colors(ranks), keys(ranks) {}

  std::vector<Member*> members;  // null: not there yet, or not any more
  size_t joined = 0;
  size_t ended = 0;                                  // ranks that have called for the end
  bool broken = false;                               // by a test
  bool held = false;                                 // by a test
  bool at_odds = false;                              // ranks made different calls
  std::vector<bool> collective;                      // ranks that have called one
  std::set<std::pair<int, int>> senders, receivers;  // from, to; where the one or the other has called
  std::vector<void*> streams;                        // of each rank's last call
  std::map<int64_t, Meeting> meetings;
  std::map<std::pair<int, int>, std::deque<std::shared_ptr<Message>>> sent;  // from, to
  size_t splitting = 0;  // ranks that have called for the split under way
  std::vector<int> colors, keys;
  std::string part_name;

  // The other ranks' hosts may be waiting for something else. What is advanced comes back here for ranks of its own;
  // each stream is advanced once until the first caller has seen them all, and whoever waits calls again.
  void advance_others(int rank) const {
    static std::set<void*> advanced;
    static int depth = 0;
    ++depth;
    for (size_t r = 0; r < streams.size(); ++r) {
      if (static_cast<int>(r) == rank || streams[r] == nullptr) continue;
      if (advanced.insert(streams[r]).second) grid::advance(streams[r]);
    }
    if (--depth == 0) advanced.clear();
  }
};

}  // namespace tessera::grid::nccl
