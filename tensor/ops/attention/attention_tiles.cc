#include <algorithm>
#include <limits>

#include "tensor/ops/attention/attention.h"

namespace tessera {
namespace {

// Ranges over the tokens of a tile, or of a run of them, that are not padding; empty when low > high.
struct Range {
  int32_t document_low = std::numeric_limits<int32_t>::max();
  int32_t document_high = -1;
  int32_t position_low = std::numeric_limits<int32_t>::max();
  int32_t position_high = std::numeric_limits<int32_t>::min();
  int32_t padding = 0;  // tokens

  void add(int32_t document, int32_t position) {
    if (document < 0) {
      ++padding;
      return;
    }
    document_low = std::min(document_low, document);
    document_high = std::max(document_high, document);
    position_low = std::min(position_low, position);
    position_high = std::max(position_high, position);
  }
  bool one_document() const { return document_low == document_high; }
};
static_assert(sizeof(Range) == 5 * sizeof(int32_t));

int64_t tile_end(const TokenPlaces& places, int64_t tile) {
  return std::min<int64_t>((tile + 1) * kAttentionTile, places.document.size());
}

Range tile_range(const TokenPlaces& places, int64_t tile) {
  Range range;
  for (int64_t i = tile * kAttentionTile; i < tile_end(places, tile); ++i) {
    range.add(places.document[i], places.position[i]);
  }
  return range;
}

// Whether a query of one range may see a key of the other; exact for single documents whose positions have no gaps.
bool may_see(const Range& query, const Range& key, int64_t window) {
  const bool shared = query.document_low <= key.document_high && key.document_low <= query.document_high;
  const bool past = key.position_low <= query.position_high;
  return shared && past && (window == 0 || int64_t{query.position_low} - key.position_high < window);
}

bool all_seen(const Range& query, const Range& key, int64_t window) {
  return query.padding == 0 && key.padding == 0 && query.one_document() && key.one_document() &&
         query.document_low == key.document_low && key.position_high <= query.position_low &&
         (window == 0 || int64_t{query.position_high} - key.position_low < window);
}

// Calls visit(range) for each run of tokens of one document, until it says true; says whether it did.
template <class Visit>
bool any_run(const TokenPlaces& places, int64_t tile, Visit visit) {
  const int64_t end = tile_end(places, tile);
  for (int64_t begin = tile * kAttentionTile, next; begin < end; begin = next) {
    Range run;
    for (next = begin; next < end && places.document[next] == places.document[begin]; ++next) {
      run.add(places.document[next], places.position[next]);
    }
    if (run.padding == 0 && visit(run)) return true;
  }
  return false;
}

}  // namespace

AttentionTileCapacity attention_tile_capacity(int64_t queries, int64_t keys) {
  const int64_t query_tiles = (queries + kAttentionTile - 1) / kAttentionTile;
  const int64_t key_tiles = (keys + kAttentionTile - 1) / kAttentionTile;
  constexpr int64_t kRangeElements = sizeof(Range) / sizeof(int32_t);
  return {.offsets = query_tiles + 1 + key_tiles * kRangeElements, .pairs = query_tiles * key_tiles};
}

AttentionTiles make_attention_tiles(const TokenPlaces& queries, const TokenPlaces& keys, int64_t window,
                                    std::span<int32_t> offset, std::span<int32_t> key_tile, std::span<uint8_t> full) {
  const int64_t query_count = queries.document.size();
  const int64_t key_count = keys.document.size();
  TESSERA_CHECK_EQ(static_cast<int64_t>(queries.position.size()), query_count, "a position and a document per query");
  TESSERA_CHECK_EQ(static_cast<int64_t>(keys.position.size()), key_count, "a position and a document per key");
  TESSERA_CHECK(window >= 0, "a window is positive, or 0 for none");
  const AttentionTileCapacity capacity = attention_tile_capacity(query_count, key_count);
  TESSERA_CHECK(static_cast<int64_t>(offset.size()) >= capacity.offsets &&
                    static_cast<int64_t>(key_tile.size()) >= capacity.pairs &&
                    static_cast<int64_t>(full.size()) >= capacity.pairs,
                "tile lists are sized by attention_tile_capacity");
  TESSERA_CHECK(capacity.pairs <= std::numeric_limits<int32_t>::max(), "tile pairs are counted in 32 bits");
  const int64_t query_tiles = (query_count + kAttentionTile - 1) / kAttentionTile;
  const int64_t key_tiles = (key_count + kAttentionTile - 1) / kAttentionTile;

  // Ranges of the key tiles, kept behind the offsets.
  constexpr int64_t kRangeElements = sizeof(Range) / sizeof(int32_t);
  const std::span<int32_t> ranges = offset.subspan(query_tiles + 1, key_tiles * kRangeElements);
  for (int64_t j = 0; j < key_tiles; ++j) {
    const auto packed = std::bit_cast<std::array<int32_t, kRangeElements>>(tile_range(keys, j));
    std::copy(packed.begin(), packed.end(), ranges.begin() + j * kRangeElements);
  }

  int32_t pairs = 0;
  offset[0] = 0;
  for (int64_t i = 0; i < query_tiles; ++i) {
    const Range query = tile_range(queries, i);
    for (int64_t j = 0; j < key_tiles; ++j) {
      std::array<int32_t, kRangeElements> packed;
      std::copy_n(ranges.begin() + j * kRangeElements, kRangeElements, packed.begin());
      const Range key = std::bit_cast<Range>(packed);
      if (!may_see(query, key, window)) continue;
      // Where documents meet inside a tile, its range of positions says little: compare documents one by one.
      const bool precise = query.one_document() && key.one_document();
      if (!precise && !any_run(queries, i, [&](const Range& query_run) {
            return any_run(keys, j, [&](const Range& key_run) { return may_see(query_run, key_run, window); });
          })) {
        continue;
      }
      key_tile[pairs] = static_cast<int32_t>(j);
      full[pairs] = all_seen(query, key, window) ? 1 : 0;
      ++pairs;
    }
    offset[i + 1] = pairs;
  }
  return {.offset = offset.first(query_tiles + 1), .key_tile = key_tile.first(pairs), .full = full.first(pairs)};
}

int64_t attention_pairs(const TokenPlaces& places, int64_t window) {
  int64_t pairs = 0;
  for (size_t i = 0; i < places.document.size(); ++i) {
    if (places.document[i] < 0) continue;
    const int64_t seen = int64_t{places.position[i]} + 1;
    pairs += window > 0 ? std::min(seen, window) : seen;
  }
  return pairs;
}

}  // namespace tessera
