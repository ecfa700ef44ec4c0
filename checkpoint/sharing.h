// Which rows which rank holds, and how ranks that hold the same rows share the work on them.
//
// Only intervals count, not how they came about: shards of tensor parallelism, ranges of those (ZeRO), a table that
// several pipeline stages hold. So any layout can be written, and read back by any other.
#pragma once

#include <string>
#include <vector>

#include "parallel/comm/comm.h"
#include "parallel/state.h"

namespace tessera {

struct HeldRows {
  std::string tensor;
  Interval rows;
  bool operator==(const HeldRows&) const = default;
};

// By rank; a rank's in the order of its slices.
using HeldByRank = std::vector<std::vector<HeldRows>>;

std::vector<HeldRows> held_rows(const State& state);

// What every rank holds, on every rank. Collective over world.
HeldByRank gather_held(Comm& world, const State& state);

// For each of the rank's slices, in order, the rows that it is to deal with: every row that anyone holds is dealt with
// by exactly one slice, and rows that several hold are split evenly among them. Ascending, not adjacent, never empty.
std::vector<std::vector<Interval>> share_rows(const HeldByRank& held, int rank);

}  // namespace tessera
