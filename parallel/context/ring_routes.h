// Which keys and values travel when blocks go round a ring of context-parallel ranks: a pure function of the context
// plan, worked out on every rank alike.
//
// A unit's block has the rows that another unit's queries see, those that go farthest first. After h hops, from unit o
// to o + h, what is left of it is its first rows: those that unit o + h or one behind it sees. So documents that lie on
// one unit do not travel, and of a window only the halo does.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "parallel/context/plan.h"
#include "parallel/context/sight.h"
#include "tensor/memory/arena.h"
#include "tensor/ops/attention/attention.h"

namespace tessera {

class RingRoutes {
 public:
  RingRoutes() = default;
  // Takes memory for the worst packing: everything goes round.
  RingRoutes(const ContextUnits& units, Arena& arena);

  // Overwrites the routes; allocates nothing. pieces: of all ranks, by rank and slot.
  void make(std::span<const ContextPiece> pieces, int64_t window);

  // Rows (slots) of this unit that are its block.
  std::span<const int32_t> rows() const { return rows_.span<int32_t>().first(length(units_.unit, 1)); }
  // Rows of a unit's block after some hops, at least one. With as many hops as units, or more: none.
  int64_t length(int origin, int hops) const { return hops < units_.units ? length_[origin * units_.units + hops] : 0; }
  // The places of those rows in the order of the block: what attention needs to know of each.
  TokenPlaces places(int origin, int hops) const;
  // The places of this unit's own slots, padding included.
  TokenPlaces own() const;

 private:
  ContextUnits units_;
  ContextSight sight_;
  Tensor rows_;                  // [slots]
  Tensor position_, document_;   // [units, slots]: of the blocks; own slots in this unit's place
  std::vector<int64_t> length_;  // [units, units] by origin and hops; [o, 0] is not used
  std::vector<int64_t> at_;      // [units, units] where the next row with that reach goes
};

}  // namespace tessera
