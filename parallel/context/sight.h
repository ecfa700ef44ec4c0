// Which keys of a context plan's pieces the queries of other ranks see: what routes are made of.
//
// Ranks are taken in units of neighbours that hold their tokens together (one rank, or those that trade tokens for
// heads inside). Key j of a document is seen by a unit that holds a query i of it with j <= i and, with a window w > 0,
// i - j < w. Pieces do not overlap, so of a piece a unit sees a last part: back from its nearest later piece.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include "parallel/context/plan.h"
#include "tensor/memory/arena.h"

namespace tessera {

// One rank's place among units.
struct ContextUnits {
  int units = 1;
  int unit = 0;       // this rank's
  int ranks = 1;      // of a unit
  int64_t slots = 0;  // of a unit: those of its ranks one after another

  int unit_of(const ContextPiece& piece) const { return piece.rank / ranks; }
  // The piece's first token among its unit's slots.
  int32_t slot_of(const ContextPiece& piece) const {
    return static_cast<int32_t>(piece.rank % ranks * (slots / ranks)) + piece.slot;
  }
  int64_t all_slots() const { return units * slots; }
};

class ContextSight {
 public:
  ContextSight() = default;
  // Takes memory for as many pieces as there are slots.
  ContextSight(const ContextUnits& units, Arena& arena)
      : units_(units), order_(arena.take({units.all_slots()}, DType::I32)), later_(units.units), first_(units.units) {}

  // Looks at the pieces in descending order of (document, position): visit(piece, first) with first[u] the first token
  // of the piece that unit u sees, or the piece's length where it sees none; the piece's own unit is said to see none.
  template <class Visit>
  void descend(std::span<const ContextPiece> pieces, int64_t window, Visit visit) {
    const std::span<int32_t> order = order_.span<int32_t>().first(pieces.size());
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      const ContextPiece &x = pieces[a], &y = pieces[b];
      return x.document != y.document ? x.document > y.document : x.position > y.position;
    });
    int32_t document = -1;
    for (const int32_t at : order) {
      const ContextPiece& piece = pieces[at];
      if (piece.document != document) std::fill(later_.begin(), later_.end(), -1);
      document = piece.document;
      const int own = units_.unit_of(piece);
      for (int u = 0; u < units_.units; ++u) {
        first_[u] = piece.length;
        if (u == own || later_[u] < 0) continue;
        const int64_t farthest = window == 0 ? 0 : later_[u] - window + 1 - piece.position;
        first_[u] = static_cast<int32_t>(std::clamp<int64_t>(farthest, 0, piece.length));
      }
      visit(piece, std::span<const int32_t>(first_));
      later_[own] = piece.position;
    }
  }

 private:
  ContextUnits units_;
  Tensor order_;
  std::vector<int32_t> later_;  // by unit: the position of its nearest later piece of the document; -1: none
  std::vector<int32_t> first_;
};

}  // namespace tessera
