// Interval arithmetic: a shard is a range of rows, a shard of a shard a range of that range.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

namespace tessera {

// Half-open range of rows of dim 0.
struct Interval {
  int64_t begin = 0;
  int64_t end = 0;

  int64_t size() const { return end - begin; }
  bool empty() const { return end <= begin; }
  bool contains(int64_t row) const { return begin <= row && row < end; }
  bool operator==(const Interval&) const = default;
  std::string str() const {
    // "[" + ... would insert in front, where GCC 12 sees an overlap that is not there (its bug 105651).
    return std::string("[").append(std::to_string(begin)).append(", ").append(std::to_string(end)).append(")");
  }
};

inline Interval intersect(const Interval& a, const Interval& b) {
  const int64_t begin = std::max(a.begin, b.begin);
  return {begin, std::max(begin, std::min(a.end, b.end))};
}

// Rows of part `index` of `parts`: ceil(rows / parts) each, so that the last parts may be short or empty.
inline int64_t shard_rows(int64_t rows, int parts) { return (rows + parts - 1) / parts; }
inline Interval shard(const Interval& whole, int parts, int index) {
  const int64_t rows = shard_rows(whole.size(), parts);
  return {std::min(whole.end, whole.begin + rows * index), std::min(whole.end, whole.begin + rows * (index + 1))};
}

}  // namespace tessera
