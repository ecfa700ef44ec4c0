// Which keys and values travel between context-parallel ranks when each gathers what its queries see, and where they
// lie then: a pure function of the context plan, worked out on every rank alike.
//
// Only documents that lie on several units travel, of them only tokens that come before a query of the receiver, and
// with a window only the halo before it. A list is in ascending order of (document, position), at the sender as at the
// receiver.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "parallel/context/plan.h"
#include "parallel/context/sight.h"
#include "tensor/memory/arena.h"
#include "tensor/ops/attention/attention.h"

namespace tessera {

class ContextRoutes {
 public:
  ContextRoutes() = default;
  // Takes memory for the worst packing: everything is seen by everyone.
  ContextRoutes(const ContextUnits& units, Arena& arena);

  // Overwrites the routes; allocates nothing. pieces: of all ranks, by rank and slot.
  void make(std::span<const ContextPiece> pieces, int64_t window);

  // Rows (slots) of this unit whose keys queries of another unit see.
  std::span<const int32_t> sent(int unit) const {
    return sent_.span<int32_t>().subspan(sent_begin_[unit], sent_count_[unit]);
  }
  // This unit's keys: its own slots, padding included, then for each other unit, in order, what it sends.
  TokenPlaces keys() const;
  int64_t received(int unit) const { return received_[unit]; }
  int64_t first_key(int unit) const { return first_key_[unit]; }

  // Rows over all other units.
  int64_t sent_rows() const;
  int64_t received_rows() const { return keys_ - units_.slots; }
  static int64_t most_sent(const ContextUnits& units) { return (units.units - 1) * units.slots; }
  static int64_t most_keys(const ContextUnits& units) { return units.all_slots(); }

 private:
  ContextUnits units_;
  ContextSight sight_;
  Tensor sent_;                 // [units, slots]: of unit u the last sent_count_[u] of its row
  Tensor position_, document_;  // [units * slots]
  std::vector<int64_t> sent_begin_, sent_count_, received_, first_key_;
  int64_t keys_ = 0;
};

// Positions and document ids of a unit's slots, padding included (0 and -1). Overwrites both.
void unit_places(const ContextUnits& units, std::span<const ContextPiece> pieces, std::span<int32_t> position,
                 std::span<int32_t> document);

}  // namespace tessera
