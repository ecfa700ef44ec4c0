#include "tensor/interval.h"

#include <gtest/gtest.h>

namespace tessera {
namespace {

TEST(Shard, PartsCoverTheWholeOnceInOrder) {
  for (int64_t rows : {0, 1, 2, 5, 7, 8, 64, 1000}) {
    for (int parts = 1; parts <= 9; ++parts) {
      const Interval whole{3, 3 + rows};
      int64_t next = whole.begin;
      for (int i = 0; i < parts; ++i) {
        const Interval part = shard(whole, parts, i);
        EXPECT_EQ(part.begin, next);
        EXPECT_LE(part.size(), shard_rows(rows, parts));
        EXPECT_GE(part.size(), 0);
        // Only the last non-empty part is short.
        EXPECT_TRUE(part.end == whole.end || part.size() == shard_rows(rows, parts)) << part.str();
        next = part.end;
      }
      EXPECT_EQ(next, whole.end);
    }
  }
}

TEST(Shard, IntersectionIsWhatBothContain) {
  for (int64_t a = 0; a < 5; ++a) {
    for (int64_t b = a; b < 5; ++b) {
      for (int64_t c = 0; c < 5; ++c) {
        for (int64_t d = c; d < 5; ++d) {
          const Interval both = intersect({a, b}, {c, d});
          for (int64_t row = 0; row < 5; ++row) {
            EXPECT_EQ(both.contains(row), a <= row && row < b && c <= row && row < d);
          }
        }
      }
    }
  }
  EXPECT_TRUE(intersect({0, 3}, {5, 9}).empty());
  EXPECT_EQ((Interval{2, 7}.str()), "[2, 7)");
}

}  // namespace
}  // namespace tessera
