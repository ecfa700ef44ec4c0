#include "parallel/rank_grid.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "parallel/mesh.h"
#include "tests/support/ranks.h"

namespace tessera {
namespace {

// The ranks that one reaches from `rank` by changing coordinates along the axes, as plainly as possible.
std::vector<int> reached(const std::vector<RankAxis>& axes, int world, int rank) {
  std::vector<bool> seen(world);
  std::vector<int> found = {rank};
  seen[rank] = true;
  for (size_t i = 0; i < found.size(); ++i) {
    for (const RankAxis& axis : axes) {
      for (int c = 0; c < axis.extent; ++c) {
        const int next = found[i] + (c - axis.coordinate(found[i])) * axis.stride;
        if (!seen[next]) found.push_back(next);
        seen[next] = true;
      }
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

void expect_groups(const std::vector<RankAxis>& axes, int world) {
  const RankGroups groups(axes);
  for (int rank = 0; rank < world; ++rank) {
    const std::vector<int> expected = reached(axes, world, rank);
    ASSERT_EQ(groups.size(), static_cast<int>(expected.size())) << rank;
    EXPECT_EQ(groups.first(rank), expected.front()) << rank;
    EXPECT_EQ(expected.at(groups.position(rank)), rank);
  }
}

// The mesh cuts pp * dp * cp * tp; experts cut dp * cp * tp a second time. All sets of axes of both factorings together.
TEST(RankGroups, OfTwoFactoringsOfTheSameRanks) {
  const MeshShape shape{.pp = 2, .dp = 4, .cp = 2, .tp = 2, .zero_group = 2};
  const int replica = shape.dp * shape.cp * shape.tp;
  for (const int experts : {1, 2, 4, 8, 16}) {
    const std::vector<RankAxis> all = {shape.axis(Axis::Pp),
                                       shape.axis(Axis::Dp),
                                       shape.axis(Axis::ZeroShard),
                                       shape.axis(Axis::ZeroReplica),
                                       shape.axis(Axis::Cp),
                                       shape.axis(Axis::Tp),
                                       {1, experts},
                                       {experts, replica / experts}};
    for (unsigned bits = 0; bits < 1u << all.size(); ++bits) {
      std::vector<RankAxis> set;
      for (size_t a = 0; a < all.size(); ++a)
        if (bits >> a & 1u) set.push_back(all[a]);
      expect_groups(set, shape.size());
    }
    const RankAxis expert = all[6], expert_replica = all[7];
    for (int rank = 0; rank < shape.size(); ++rank) {
      EXPECT_EQ(expert.coordinate(rank) + experts * expert_replica.coordinate(rank), rank % replica);
    }
  }
}

// Groups of communicating ranks along axes that the mesh does not know: the color is the group's first rank.
TEST(RankGroups, ColorCommunicatorsOfASecondFactoring) {
  const MeshShape shape{.dp = 3, .tp = 2};
  const RankAxis expert{1, 3}, expert_replica{3, 2};
  testing::run_ranks(shape.size(), [&](Comm& world) {
    for (const std::vector<RankAxis>& set : {std::vector{expert}, std::vector{expert_replica}}) {
      const RankGroups groups(set);
      const std::unique_ptr<Comm> group = world.split(groups.first(world.rank()), "expert");
      ASSERT_EQ(group->size(), groups.size());
      EXPECT_EQ(group->rank(), groups.position(world.rank()));
      std::vector<int32_t> own = {world.rank()}, members(group->size());
      group->all_gather(Tensor(std::span<int32_t>(own), Shape{1}),
                        Tensor(std::span<int32_t>(members), Shape{group->size()}));
      const std::vector<int> expected = reached(set, shape.size(), world.rank());
      EXPECT_TRUE(std::equal(members.begin(), members.end(), expected.begin(), expected.end()));
    }
  });
}

TEST(RankGroups, RefuseASetWithoutDigits) {
  const RankAxis expert{1, 3}, expert_replica{3, 2}, tp{1, 2};
  EXPECT_THROW(RankGroups(std::vector{expert, tp}), InternalError);
  EXPECT_THROW(RankGroups(std::vector{expert_replica, tp}), InternalError);
  EXPECT_THROW(RankGroups(std::vector{RankAxis{1, 6}, RankAxis{2, 2}}), InternalError);
}

}  // namespace
}  // namespace tessera
