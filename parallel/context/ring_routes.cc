#include "parallel/context/ring_routes.h"

#include "parallel/context/routes.h"

namespace tessera {

RingRoutes::RingRoutes(const ContextUnits& units, Arena& arena)
    : units_(units),
      sight_(units, arena),
      rows_(arena.take({units.slots}, DType::I32)),
      position_(arena.take({units.units, units.slots}, DType::I32)),
      document_(arena.take({units.units, units.slots}, DType::I32)),
      length_(units.units * units.units),
      at_(units.units * units.units) {}

void RingRoutes::make(std::span<const ContextPiece> pieces, int64_t window) {
  const int n = units_.units;
  // Calls visit(piece, origin, reach, begin, end) for the tokens [begin, end) of a piece that go `reach` hops.
  const auto for_reaches = [&](const auto& visit) {
    sight_.descend(pieces, window, [&](const ContextPiece& piece, std::span<const int32_t> first) {
      const int origin = units_.unit_of(piece);
      int32_t end = piece.length;
      for (int reach = n - 1; reach >= 1; --reach) {
        const int32_t begin = first[(origin + reach) % n];
        if (begin >= end) continue;
        visit(piece, origin, reach, begin, end);
        end = begin;
      }
    });
  };
  std::fill(length_.begin(), length_.end(), 0);
  for_reaches([&](const ContextPiece&, int origin, int reach, int32_t begin, int32_t end) {
    for (int hops = 1; hops <= reach; ++hops) length_[origin * n + hops] += end - begin;
  });
  at_ = length_;
  const std::span<int32_t> rows = rows_.span<int32_t>(), position = position_.span<int32_t>(),
                           document = document_.span<int32_t>();
  for_reaches([&](const ContextPiece& piece, int origin, int reach, int32_t begin, int32_t end) {
    const bool own = origin == units_.unit;
    for (int32_t i = end; i-- > begin;) {
      const int64_t at = --at_[origin * n + reach];
      if (own) {
        rows[at] = units_.slot_of(piece) + i;
      } else {
        position[origin * units_.slots + at] = piece.position + i;
        document[origin * units_.slots + at] = piece.document;
      }
    }
  });
  const auto first = static_cast<size_t>(units_.unit * units_.slots), slots = static_cast<size_t>(units_.slots);
  unit_places(units_, pieces, position.subspan(first, slots), document.subspan(first, slots));
}

TokenPlaces RingRoutes::places(int origin, int hops) const {
  const auto first = static_cast<size_t>(origin * units_.slots), count = static_cast<size_t>(length(origin, hops));
  return {position_.span<int32_t>().subspan(first, count), document_.span<int32_t>().subspan(first, count)};
}

TokenPlaces RingRoutes::own() const {
  const auto first = static_cast<size_t>(units_.unit * units_.slots), count = static_cast<size_t>(units_.slots);
  return {position_.span<int32_t>().subspan(first, count), document_.span<int32_t>().subspan(first, count)};
}

}  // namespace tessera
