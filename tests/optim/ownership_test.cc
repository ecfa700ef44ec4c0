#include "optim/ownership.h"

#include <gtest/gtest.h>

namespace tessera {
namespace {

constexpr AxisSet kSplit{Axis::Dp, Axis::Cp}, kWhole{Axis::Dp, Axis::Cp, Axis::Tp};

Parameter parameter(Interval rows, AxisSet replicas, bool whole_matrix = false, int64_t ordinal = 0) {
  return {.name = "p",
          .global_shape = {20, 3},
          .rows = rows,
          .replicas = replicas,
          .ordinal = ordinal,
          .ordinals = 9,
          .whole_matrix = whole_matrix,
          .value = {},
          .gradient = {}};
}

TEST(Ownership, AtStageZeroEveryReplicaOwnsAllRows) {
  const MeshShape mesh{.dp = 3, .tp = 2};
  for (int rank = 0; rank < 6; ++rank) {
    const Ownership own = ownership(parameter({10, 20}, kSplit), mesh, rank, 0);
    EXPECT_EQ(own.rows, (Interval{10, 20}));
    EXPECT_EQ(own.parts, 1);
    EXPECT_EQ(own.replica, rank / 2);
    EXPECT_EQ(own.replicas, 3);
  }
}

TEST(Ownership, FromStageOneOnRanksShareTheRowsInTheirOrder) {
  const MeshShape mesh{.dp = 3, .tp = 2};
  const Interval parts[] = {{10, 14}, {14, 18}, {18, 20}};  // ceil(10 / 3) = 4
  for (const int stage : {1, 2, 3}) {
    for (int rank = 0; rank < 6; ++rank) {
      const Ownership own = ownership(parameter({10, 20}, kSplit), mesh, rank, stage);
      EXPECT_EQ(own.rows, parts[rank / 2]);
      EXPECT_EQ(own.part, rank / 2);
      EXPECT_EQ(own.replicas, 1);
      // What tp ranks hold alike they share, too.
      EXPECT_EQ(ownership(parameter({0, 20}, kWhole), mesh, rank, stage).rows,
                (Interval{std::min(20, 4 * rank), std::min(20, 4 * rank + 4)}));
    }
  }
}

TEST(Ownership, LastRanksMayOwnNothing) {
  EXPECT_EQ(ownership(parameter({0, 5}, kSplit), {.dp = 4}, 2, 1).rows, (Interval{4, 5}));
  EXPECT_TRUE(ownership(parameter({0, 5}, kSplit), {.dp = 4}, 3, 1).rows.empty());
}

TEST(Ownership, NeighbourhoodsHoldAllRowsEach) {
  const MeshShape mesh{.dp = 6, .cp = 2, .zero_group = 3};
  for (int rank = 0; rank < 12; ++rank) {
    const Ownership own = ownership(parameter({0, 18}, kSplit), mesh, rank, 2);
    EXPECT_EQ(own.sharers, (AxisSet{Axis::ZeroShard, Axis::Cp}));
    EXPECT_EQ(own.copies, AxisSet{Axis::ZeroReplica});
    EXPECT_EQ(own.parts, 6);
    EXPECT_EQ(own.part, rank % 6);
    EXPECT_EQ(own.replica, rank / 6);
    EXPECT_EQ(own.replicas, 2);
    EXPECT_EQ(own.rows, (Interval{3 * (rank % 6), 3 * (rank % 6) + 3}));
  }
}

TEST(Ownership, BothEndsOwnTheRowsOfATiedTable) {
  const MeshShape mesh{.pp = 3, .dp = 2};
  for (const int rank : {0, 1, 4, 5}) {
    const Ownership own = ownership(parameter({0, 20}, kSplit.with(Axis::TiedEnds)), mesh, rank, 1);
    EXPECT_EQ(own.rows, rank % 2 == 0 ? (Interval{0, 10}) : (Interval{10, 20}));
    EXPECT_EQ(own.copies, AxisSet{Axis::TiedEnds});
    EXPECT_EQ(own.replica, rank / 4);
    EXPECT_EQ(own.replicas, 2);
  }
}

TEST(Ownership, AWholeMatrixHasOneOwnerAndMatricesAreDealtOut) {
  for (int64_t ordinal = 0; ordinal < 7; ++ordinal) {
    for (int rank = 0; rank < 3; ++rank) {
      const Ownership own = ownership(parameter({0, 20}, kSplit, true, ordinal), {.dp = 3}, rank, 1);
      EXPECT_EQ(own.owner, ordinal % 3);
      EXPECT_EQ(own.rows.size(), rank == ordinal % 3 ? 20 : 0);
    }
  }
}

TEST(Ownership, MemoryHasEqualParts) {
  Parameter p = parameter({10, 20}, kSplit);
  share_out({&p}, {.dp = 3, .tp = 2}, 1);
  EXPECT_EQ(p.parts, 3);
  EXPECT_EQ(p.padded_shape(), (Shape{12, 3}));
  EXPECT_EQ(p.local_shape(), (Shape{10, 3}));
  share_out({&p}, {.dp = 3, .tp = 2}, 0);
  EXPECT_EQ(p.padded_shape(), p.local_shape());
}

}  // namespace
}  // namespace tessera
