#include "parallel/context/routes.h"

namespace tessera {

void unit_places(const ContextUnits& units, std::span<const ContextPiece> pieces, std::span<int32_t> position,
                 std::span<int32_t> document) {
  std::fill(position.begin(), position.end(), 0);
  std::fill(document.begin(), document.end(), -1);
  for (const ContextPiece& piece : pieces) {
    if (units.unit_of(piece) != units.unit) continue;
    const int32_t slot = units.slot_of(piece);
    std::iota(position.begin() + slot, position.begin() + slot + piece.length, piece.position);
    std::fill_n(document.begin() + slot, piece.length, piece.document);
  }
}

ContextRoutes::ContextRoutes(const ContextUnits& units, Arena& arena)
    : units_(units),
      sight_(units, arena),
      sent_(arena.take({units.units, units.slots}, DType::I32)),
      position_(arena.take({units.all_slots()}, DType::I32)),
      document_(arena.take({units.all_slots()}, DType::I32)),
      sent_begin_(units.units),
      sent_count_(units.units),
      received_(units.units),
      first_key_(units.units) {}

void ContextRoutes::make(std::span<const ContextPiece> pieces, int64_t window) {
  const int64_t slots = units_.slots;
  const std::span<int32_t> sent = sent_.span<int32_t>(), position = position_.span<int32_t>(),
                           document = document_.span<int32_t>();
  for (int u = 0; u < units_.units; ++u) {
    sent_begin_[u] = (u + 1) * slots;
    received_[u] = sent_count_[u] = 0;
  }
  // Lists are filled from their ends, as the pieces come in descending order. What unit u sends lies in the second part
  // of its own region of the places until it is moved to the others.
  sight_.descend(pieces, window, [&](const ContextPiece& piece, std::span<const int32_t> first) {
    const int owner = units_.unit_of(piece);
    const int32_t slot = units_.slot_of(piece);
    if (owner == units_.unit) {
      for (int u = 0; u < units_.units; ++u) {
        for (int32_t i = piece.length; i-- > first[u];) sent[--sent_begin_[u]] = slot + i;
        sent_count_[u] += piece.length - first[u];
      }
      return;
    }
    for (int32_t i = piece.length; i-- > first[units_.unit];) {
      const int64_t at = (owner + 1) * slots - ++received_[owner];
      position[at] = piece.position + i;
      document[at] = piece.document;
    }
  });
  // Own places lie in this unit's region so far; then all move to the order of the keys.
  const auto own = static_cast<size_t>(units_.unit * slots);
  unit_places(units_, pieces, position.subspan(own, slots), document.subspan(own, slots));
  for (const std::span<int32_t> places : {position, document}) {
    // Own slots first: the regions before them move up by a region.
    std::rotate(places.begin(), places.begin() + static_cast<int64_t>(own),
                places.begin() + static_cast<int64_t>(own) + slots);
    int64_t at = slots;
    for (int u = 0; u < units_.units; ++u) {
      if (u == units_.unit) continue;
      const int64_t region = u < units_.unit ? u + 1 : u;  // after the rotation
      const int64_t from = (region + 1) * slots - received_[u];
      std::copy(places.begin() + from, places.begin() + from + received_[u], places.begin() + at);
      first_key_[u] = at;
      at += received_[u];
    }
    keys_ = at;
  }
  first_key_[units_.unit] = 0;
}

TokenPlaces ContextRoutes::keys() const {
  return {position_.span<int32_t>().first(keys_), document_.span<int32_t>().first(keys_)};
}

int64_t ContextRoutes::sent_rows() const { return std::accumulate(sent_count_.begin(), sent_count_.end(), int64_t{0}); }

}  // namespace tessera
