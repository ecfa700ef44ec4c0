// Random placements of packed documents on ranks, good plans or not: routes must be right for any.
#pragma once

#include <algorithm>
#include <vector>

#include "parallel/context/plan.h"
#include "tensor/context/random.h"

namespace tessera::testing {

struct RandomPieces {
  int ranks;
  int64_t slots;
  std::vector<ContextPiece> pieces;  // by rank and slot, with padding between and behind

  RandomPieces(int ranks_, int64_t slots_, uint64_t seed) : ranks(ranks_), slots(slots_) {
    const RandomStream random(seed, "pieces");
    uint64_t draw = 0;
    const auto below = [&](int64_t n) { return static_cast<int32_t>(random.below(draw++, static_cast<uint64_t>(n))); };
    // Documents are cut into pieces, of one token or many, that go to whichever rank is drawn and still has room.
    std::vector<std::vector<ContextPiece>> by_rank(ranks);
    std::vector<int64_t> used(ranks, 0);
    int32_t source = 0;
    const int32_t longest = 1 + below(2 * slots);
    for (int32_t document = 0, tries = 0; tries < 8; ++document) {
      const int32_t length = below(4) == 0 ? 1 : 1 + below(longest);
      const int32_t piece_length = 1 + below(length);
      const bool whole = below(3) == 0;
      for (int32_t at = 0; at < length;) {
        const int rank = below(ranks);
        const auto room = static_cast<int32_t>(slots - used[rank]);
        const int32_t piece = std::min({length - at, whole ? length : piece_length, room});
        if (piece == 0) {
          if (++tries >= 8) break;
          continue;
        }
        by_rank[rank].push_back(
            {.rank = rank, .source = source, .length = piece, .document = document, .position = at});
        used[rank] += piece;
        source += piece;
        at += piece;
      }
    }
    for (int rank = 0; rank < ranks; ++rank) {
      std::vector<ContextPiece>& own = by_rank[rank];
      // In any order; a piece after another of its document keeps to ascending positions, as plans promise.
      std::sort(own.begin(), own.end(), [&](const ContextPiece& a, const ContextPiece& b) {
        const int32_t x = (a.document * 7 + static_cast<int32_t>(seed)) % 5,
                      y = (b.document * 7 + static_cast<int32_t>(seed)) % 5;
        return x != y ? x < y : a.document != b.document ? a.document < b.document : a.position < b.position;
      });
      int32_t slot = 0, spare = static_cast<int32_t>(slots - used[rank]);
      for (ContextPiece& piece : own) {
        const int32_t gap = spare > 0 ? below(spare + 1) : 0;
        spare -= gap;
        piece.slot = slot += gap;
        slot += piece.length;
        pieces.push_back(piece);
      }
    }
  }
};

// One token of a placement.
struct PlacedToken {
  int rank;
  int32_t slot, document, position;
};
inline std::vector<PlacedToken> tokens_of(const std::vector<ContextPiece>& pieces) {
  std::vector<PlacedToken> tokens;
  for (const ContextPiece& piece : pieces) {
    for (int32_t i = 0; i < piece.length; ++i)
      tokens.push_back({piece.rank, piece.slot + i, piece.document, piece.position + i});
  }
  return tokens;
}

}  // namespace tessera::testing
