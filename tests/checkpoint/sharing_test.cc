#include "checkpoint/sharing.h"

#include <gtest/gtest.h>

#include "parallel/comm/comm_threads.h"
#include "tests/checkpoint/layouts.h"

namespace tessera {
namespace {

using Shares = std::vector<std::vector<Interval>>;

// How often each of the rows is dealt with, over all ranks and slices.
std::vector<int> times(const HeldByRank& held, const std::string& tensor, int64_t rows) {
  std::vector<int> count(static_cast<size_t>(rows));
  for (size_t rank = 0; rank < held.size(); ++rank) {
    const Shares shares = share_rows(held, static_cast<int>(rank));
    EXPECT_EQ(shares.size(), held[rank].size());
    for (size_t i = 0; i < shares.size(); ++i) {
      for (const Interval& share : shares[i]) {
        EXPECT_FALSE(share.empty());
        EXPECT_EQ(intersect(share, held[rank][i].rows), share) << "no rank has rows to deal with that it does not hold";
        if (held[rank][i].tensor != tensor) continue;
        for (int64_t row = share.begin; row < share.end; ++row) ++count[row];
      }
    }
  }
  return count;
}

TEST(Sharing, EveryHeldRowIsDealtWithOnce) {
  const HeldByRank held = {{{"a", {0, 10}}, {"b", {0, 1}}},
                           {{"a", {4, 6}}, {"b", {0, 1}}},
                           {{"a", {5, 5}}, {"a", {5, 12}}},
                           {},
                           {{"a", {20, 21}}, {"a", {0, 3}}}};
  std::vector<int> expected(22, 0);
  for (int row = 0; row < 12; ++row) expected[row] = 1;
  expected[20] = 1;
  EXPECT_EQ(times(held, "a", 22), expected);
  EXPECT_EQ(times(held, "b", 1), std::vector<int>{1});
}

TEST(Sharing, EveryLayoutIsCovered) {
  const auto tensors = transformer_tensors(6);
  for (const Layout& layout : {Layout{.pp = 4}, Layout{.pp = 2, .dp = 3, .tp = 2, .zero = true}, Layout{.dp = 5},
                               Layout{.dp = 4, .cp = 2, .tp = 3, .zero = true}}) {
    HeldByRank held;
    for (int rank = 0; rank < layout.ranks(); ++rank) held.push_back(held_by(tensors, layout, rank));
    for (const TestTensor& tensor : tensors) {
      EXPECT_EQ(times(held, tensor.name, tensor.shape[0]), std::vector<int>(tensor.shape[0], 1))
          << layout.str() << " " << tensor.name;
    }
  }
}

TEST(Sharing, HoldersOfTheSameRowsShareThemEvenly) {
  HeldByRank held(4, {{"a", {8, 16}}});
  for (int rank = 0; rank < 4; ++rank) {
    const Shares shares = share_rows(held, rank);
    ASSERT_EQ(shares[0].size(), 1u);
    EXPECT_EQ(shares[0][0].size(), 2);
  }
}

// Rows that cannot be split do not all fall to the same rank.
TEST(Sharing, TensorsOfOneRowAreSpread) {
  HeldByRank held(4);
  for (auto& rank : held) {
    for (int i = 0; i < 64; ++i) rank.push_back({"norm" + std::to_string(i), {0, 1}});
  }
  for (int rank = 0; rank < 4; ++rank) {
    int64_t rows = 0;
    for (const auto& share : share_rows(held, rank)) rows += share.empty() ? 0 : share[0].size();
    EXPECT_GT(rows, 4);
    EXPECT_LT(rows, 32);
  }
}

TEST(Sharing, IsGatheredFromAllRanks) {
  run_ranks(3, [](Comm& world) {
    State state;
    for (int i = 0; i < world.rank(); ++i) {
      StateSlice& slice = state.slices.emplace_back();
      slice.name = "master/a b " + std::to_string(i);
      slice.rows = {i, 3 * i};
    }
    const HeldByRank held = gather_held(world, state);
    const HeldByRank expected = {{}, {{"master/a b 0", {0, 0}}}, {{"master/a b 0", {0, 0}}, {"master/a b 1", {1, 3}}}};
    EXPECT_EQ(held, expected);
  });
}

}  // namespace
}  // namespace tessera
