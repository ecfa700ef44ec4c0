// The lists of tiles that attention looks at.
#include <gtest/gtest.h>

#include "tests/tensor/ops/attention/attention_case.h"

namespace tessera {
namespace {

using namespace testing_attention;

enum class Exactness { Superset, Exact };

// Every pair of tiles with a visible pair of tokens is listed (and with Exact no other), `full` says whether all are
// visible, and key tiles ascend.
void check_tiles(const Tokens& queries, const Tokens& keys, int64_t window, Exactness exactness) {
  const TileList list(queries, keys, window);
  const int64_t query_tiles = (queries.size() + kAttentionTile - 1) / kAttentionTile;
  const int64_t key_tiles = (keys.size() + kAttentionTile - 1) / kAttentionTile;
  ASSERT_EQ(static_cast<int64_t>(list.tiles.offset.size()), query_tiles + 1);
  ASSERT_EQ(list.tiles.offset[0], 0);
  ASSERT_EQ(static_cast<int64_t>(list.tiles.key_tile.size()), list.tiles.offset[query_tiles]);
  ASSERT_EQ(list.tiles.full.size(), list.tiles.key_tile.size());
  for (int64_t i = 0; i < query_tiles; ++i) {
    int32_t entry = list.tiles.offset[i];
    for (int64_t j = 0; j < key_tiles; ++j) {
      int64_t seen = 0;
      const int64_t query_end = std::min(queries.size(), (i + 1) * kAttentionTile);
      const int64_t key_end = std::min(keys.size(), (j + 1) * kAttentionTile);
      for (int64_t a = i * kAttentionTile; a < query_end; ++a) {
        for (int64_t b = j * kAttentionTile; b < key_end; ++b) {
          seen += visible(queries.places(), a, keys.places(), b, window) ? 1 : 0;
        }
      }
      const bool listed = entry < list.tiles.offset[i + 1] && list.tiles.key_tile[entry] == j;
      if (seen > 0) {
        ASSERT_TRUE(listed) << "tiles " << i << " and " << j << " with " << seen << " visible pairs";
      } else if (exactness == Exactness::Exact) {
        ASSERT_FALSE(listed) << "tiles " << i << " and " << j;
      }
      if (!listed) continue;
      const int64_t all = (query_end - i * kAttentionTile) * (key_end - j * kAttentionTile);
      ASSERT_EQ(list.tiles.full[entry] != 0, seen == all) << "tiles " << i << " and " << j;
      ++entry;
    }
    // All entries were met in ascending order of key tiles.
    ASSERT_EQ(entry, list.tiles.offset[i + 1]);
  }
}

int64_t random_window(const RandomStream& stream, uint64_t index) {
  return stream.below(index, 2) == 0 ? 0 : 1 + static_cast<int64_t>(stream.below(index + 1, 200));
}

TEST(AttentionTiles, ListExactlyTheVisibleTilesOfPackings) {
  const RandomStream stream(3, "tiles");
  for (uint64_t trial = 0; trial < 2000; ++trial) {
    const uint64_t index = trial * 4096;
    const Tokens tokens = random_packing(1 + static_cast<int64_t>(stream.below(index, 320)), stream, index + 3);
    check_tiles(tokens, tokens, random_window(stream, index + 1), Exactness::Exact);
    if (HasFatalFailure()) FAIL() << "trial " << trial;
  }
}

// Queries and keys are different tokens in any order, with gaps, as a context plan may deal them.
TEST(AttentionTiles, MissNothingInAnyOrder) {
  const RandomStream stream(4, "tiles");
  for (uint64_t trial = 0; trial < 2000; ++trial) {
    const uint64_t index = trial * 4096;
    const Tokens tokens = random_packing(1 + static_cast<int64_t>(stream.below(index, 400)), stream, index + 3);
    std::vector<int64_t> picks[2];
    const uint64_t piece = 1 + stream.below(index + 2000, 40);
    for (int64_t i = 0; i < tokens.size(); ++i) {
      const uint64_t owner = stream.below(index + 2001 + static_cast<uint64_t>(i) / piece, 3);
      for (uint64_t side = 0; side < 2; ++side) {
        if (owner == side || owner == 2) picks[side].push_back(i);
      }
    }
    if (trial % 2 == 0) std::reverse(picks[1].begin(), picks[1].end());
    check_tiles(tokens.pick(picks[0]), tokens.pick(picks[1]), random_window(stream, index + 1), Exactness::Superset);
    if (HasFatalFailure()) FAIL() << "trial " << trial;
  }
}

TEST(AttentionTiles, CausalAndWindowedShapes) {
  Tokens tokens;
  tokens.add(0, 1024);
  // Triangle: 16 * 17 / 2 pairs, all full but the diagonal.
  const TileList causal(tokens, tokens, 0);
  EXPECT_EQ(causal.tiles.key_tile.size(), 136u);
  EXPECT_EQ(std::count(causal.tiles.full.begin(), causal.tiles.full.end(), 1), 120);
  // A window of 128 reaches back over at most three tiles.
  const TileList windowed(tokens, tokens, 128);
  EXPECT_EQ(windowed.tiles.key_tile.size(), 1u + 2 + 14 * 3);
}

TEST(AttentionTiles, RefuseArraysThatAreTooSmall) {
  Tokens tokens;
  tokens.add(0, 130);
  const AttentionTileCapacity capacity = attention_tile_capacity(130, 130);
  EXPECT_EQ(capacity.pairs, 9);
  std::vector<int32_t> offset(capacity.offsets);
  std::vector<int32_t> key_tile(capacity.pairs);
  std::vector<uint8_t> full(capacity.pairs - 1);
  EXPECT_THROW(make_attention_tiles(tokens.places(), tokens.places(), 0, offset, key_tile, full), InternalError);
}

}  // namespace
}  // namespace tessera
