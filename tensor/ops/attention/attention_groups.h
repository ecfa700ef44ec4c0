// Tiles that attention's backward pass may work on apart from each other. Internal to the CPU kernels.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <span>

#include "tensor/ops/attention/attention_cpu.h"

namespace tessera::attention_detail {

// Query tiles and key tiles fall into groups that share no key tile: connected components of the graph of tile pairs.
// Each group of each key/value head is one task that alone writes its gradients.
class TileGroups {
 public:
  static int64_t nodes(const AttentionSizes& sizes) { return tile_count(sizes.queries) + tile_count(sizes.keys); }
  // Elements of memory that it needs.
  static int64_t elements(const AttentionSizes& sizes) { return 4 * nodes(sizes) + 1; }

  TileGroups(const AttentionTiles& tiles, const AttentionSizes& sizes, std::span<int32_t> memory)
      : query_tiles_(tile_count(sizes.queries)) {
    const int64_t count = nodes(sizes);
    const std::span<int32_t> parent = memory.subspan(0, count);
    members_ = memory.subspan(count, count);
    begin_ = memory.subspan(2 * count, count + 1);
    order_ = memory.subspan(3 * count + 1, count);

    const auto root = [&](int32_t node) {
      while (parent[node] != node) node = parent[node] = parent[parent[node]];
      return node;
    };
    std::iota(parent.begin(), parent.end(), 0);
    for (int64_t i = 0; i < query_tiles_; ++i) {
      for (int32_t pair = tiles.offset[i]; pair < tiles.offset[i + 1]; ++pair) {
        const int32_t a = root(static_cast<int32_t>(i));
        const int32_t b = root(static_cast<int32_t>(query_tiles_) + tiles.key_tile[pair]);
        parent[std::max(a, b)] = std::min(a, b);
      }
    }
    for (int32_t node = 0; node < count; ++node) parent[node] = root(node);
    std::iota(members_.begin(), members_.end(), 0);
    std::sort(members_.begin(), members_.end(),
              [&](int32_t a, int32_t b) { return parent[a] != parent[b] ? parent[a] < parent[b] : a < b; });
    for (int64_t i = 0; i < count; ++i) {
      if (i == 0 || parent[members_[i]] != parent[members_[i - 1]]) begin_[size_++] = static_cast<int32_t>(i);
    }
    begin_[size_] = static_cast<int32_t>(count);

    // Groups with many pairs first, so that threads end together.
    const std::span<int32_t> work = parent;
    for (int64_t group = 0; group < size_; ++group) {
      work[group] = 0;
      for (const int32_t tile : query_tiles(group)) work[group] += tiles.offset[tile + 1] - tiles.offset[tile];
    }
    order_ = order_.first(size_);
    std::iota(order_.begin(), order_.end(), 0);
    std::sort(order_.begin(), order_.end(),
              [&](int32_t a, int32_t b) { return work[a] != work[b] ? work[a] > work[b] : a < b; });
  }

  int64_t size() const { return size_; }
  // The groups, those with most work first.
  std::span<const int32_t> order() const { return order_; }
  // Ascending. Key tiles are offset by the number of query tiles.
  std::span<const int32_t> query_tiles(int64_t group) const { return members(group).first(queries_of(group)); }
  std::span<const int32_t> key_nodes(int64_t group) const { return members(group).subspan(queries_of(group)); }
  int64_t key_tile(int32_t node) const { return node - query_tiles_; }

 private:
  std::span<const int32_t> members(int64_t group) const {
    return std::span<const int32_t>(members_).subspan(begin_[group], begin_[group + 1] - begin_[group]);
  }
  int64_t queries_of(int64_t group) const {
    const auto all = members(group);
    return std::lower_bound(all.begin(), all.end(), static_cast<int32_t>(query_tiles_)) - all.begin();
  }

  int64_t query_tiles_;
  int64_t size_ = 0;
  std::span<int32_t> members_;
  std::span<int32_t> begin_;
  std::span<int32_t> order_;
};

}  // namespace tessera::attention_detail
