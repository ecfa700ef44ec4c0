#include "parallel/mesh.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "parallel/parallel.pb.h"
#include "tests/support/ranks.h"

namespace tessera {
namespace {

ParallelConfig config(int tp, int pp, int cp, int dp) {
  ParallelConfig parallel;
  parallel.set_tp(tp);
  parallel.set_pp(pp);
  parallel.set_cp(cp);
  parallel.set_dp(dp);
  return parallel;
}

std::string refusal(const ParallelConfig& parallel, int world) {
  try {
    MeshShape::resolve(parallel, world);
  } catch (const UsageError& e) {
    return e.what();
  }
  return "accepted";
}

TEST(MeshShape, DataParallelismIsWhatIsLeft) {
  const MeshShape shape = MeshShape::resolve(config(2, 1, 3, 0), 24);
  EXPECT_EQ(shape.dp, 4);
  EXPECT_EQ(shape.size(), 24);
  EXPECT_EQ(MeshShape::resolve(ParallelConfig(), 7).dp, 7);
  EXPECT_EQ(MeshShape::resolve(config(2, 2, 1, 2), 8).size(), 8);
}

TEST(MeshShape, SaysWhatWouldFit) {
  EXPECT_EQ(refusal(config(2, 1, 3, 0), 8),
            "the world has 8 ranks, which is no multiple of parallel.tp*pp*cp = 2*1*3 = 6; start 6 or 12 ranks, or "
            "change them");
  EXPECT_EQ(refusal(config(8, 1, 1, 0), 4),
            "the world has 4 ranks, which is no multiple of parallel.tp*pp*cp = 8*1*1 = 8; start 8 ranks or a multiple "
            "of it, or change them");
  EXPECT_EQ(refusal(config(2, 1, 1, 0), 1),
            "the world has 1 rank, which is no multiple of parallel.tp*pp*cp = 2*1*1 = 2; start 2 ranks or a multiple "
            "of it, or change them");
  EXPECT_EQ(refusal(config(2, 2, 1, 4), 8),
            "parallel.tp*pp*cp*dp = 2*2*1*4 = 16 ranks, but the world has 8; set parallel.dp = 2 (or 0, for all that "
            "are left), or start 16");
  EXPECT_EQ(refusal(config(3, 1, 1, 1), 4),
            "parallel.tp*pp*cp*dp = 3*1*1*1 = 3 ranks, but the world has 4; change the layout, or start 3");
  EXPECT_EQ(refusal(config(0, 1, 1, 1), 4), "parallel.tp = 0; it must be at least 1");
  EXPECT_EQ(refusal(config(1, 1, -2, 1), 4), "parallel.cp = -2; it must be at least 1");
  EXPECT_EQ(refusal(config(1, 1, 1, -1), 4), "parallel.dp = -1; it must be at least 0");
  // Products beyond an int.
  EXPECT_NE(refusal(config(65536, 65536, 65536, 0), 4), "accepted");
}

TEST(MeshShape, CoordinatesCountTpFastest) {
  const MeshShape shape{.pp = 2, .dp = 3, .cp = 5, .tp = 7};
  for (int rank = 0; rank < shape.size(); ++rank) {
    const int pp = shape.coordinate(Axis::Pp, rank), dp = shape.coordinate(Axis::Dp, rank);
    const int cp = shape.coordinate(Axis::Cp, rank), tp = shape.coordinate(Axis::Tp, rank);
    EXPECT_TRUE(pp < 2 && dp < 3 && cp < 5 && tp < 7);
    EXPECT_EQ(((pp * 3 + dp) * 5 + cp) * 7 + tp, rank);
  }
}

TEST(AxisSet, NamesItsAxes) {
  EXPECT_EQ((AxisSet{Axis::Cp, Axis::Dp}.str()), "dp*cp");
  EXPECT_EQ((AxisSet{Axis::Tp}.str()), "tp");
  EXPECT_EQ((AxisSet{Axis::Pp, Axis::Dp, Axis::Cp, Axis::Tp}.str()), "pp*dp*cp*tp");
  EXPECT_EQ(AxisSet{}.str(), "self");
}

// All sixteen sets of axes on many shapes: who is in a group, and in which order.
TEST(Mesh, GroupsHoldTheRanksThatDifferOnlyAlongTheirAxes) {
  const Axis axes[] = {Axis::Pp, Axis::Dp, Axis::Cp, Axis::Tp};
  for (const MeshShape shape : {MeshShape{}, MeshShape{.dp = 2}, MeshShape{.tp = 2}, MeshShape{.dp = 2, .tp = 2},
                                MeshShape{.cp = 2, .tp = 2}, MeshShape{.pp = 2, .cp = 2}, MeshShape{.dp = 3, .tp = 2},
                                MeshShape{.pp = 2, .dp = 2, .tp = 2}, MeshShape{.dp = 2, .cp = 2, .tp = 2}}) {
    testing::run_ranks(shape.size(), [&](Comm& world) {
      Mesh mesh(world, shape);
      for (int bits = 0; bits < 16; ++bits) {
        std::vector<int> expected;
        for (int rank = 0; rank < shape.size(); ++rank) {
          bool member = true;
          for (int a = 0; a < 4; ++a) {
            const bool along = bits >> a & 1;
            member &= along || shape.coordinate(axes[a], rank) == mesh.coordinate(axes[a]);
          }
          if (member) expected.push_back(rank);
        }
        // Built through the public constructor: the axes of the bits, one combination at a time.
        const auto pick = [&](int a) { return bits >> a & 1 ? axes[a] : axes[__builtin_ctz(bits)]; };
        const AxisSet set = bits == 0 ? AxisSet{} : AxisSet{pick(0), pick(1), pick(2), pick(3)};
        Comm& group = mesh.group(set);
        EXPECT_EQ(group.size(), static_cast<int>(expected.size())) << set.str();
        std::vector<int32_t> own = {world.rank()}, members(group.size());
        group.all_gather(Tensor(std::span<int32_t>(own), Shape{1}),
                         Tensor(std::span<int32_t>(members), Shape{group.size()}));
        EXPECT_EQ(members, expected) << set.str();
        EXPECT_EQ(group.name(), set.str());
        EXPECT_EQ(&mesh.group(set), &group);
      }
    });
  }
}

// dp in two: neighbours, and ranks of equal number among theirs.
TEST(Mesh, NeighboursAndTheirCounterparts) {
  const MeshShape shape{.pp = 2, .dp = 4, .tp = 2, .zero_group = 2};
  testing::run_ranks(shape.size(), [&](Comm& world) {
    Mesh mesh(world, shape);
    for (const AxisSet set :
         {AxisSet{Axis::ZeroShard}, AxisSet{Axis::ZeroReplica}, AxisSet{Axis::ZeroShard, Axis::Cp, Axis::Tp},
          AxisSet{Axis::ZeroShard, Axis::ZeroReplica}}) {
      std::vector<int32_t> expected;
      for (int rank = 0; rank < shape.size(); ++rank) {
        bool member = true;
        for (const Axis axis : {Axis::Pp, Axis::ZeroReplica, Axis::ZeroShard, Axis::Tp})
          member &= set.has(axis) || shape.coordinate(axis, rank) == mesh.coordinate(axis);
        if (member) expected.push_back(rank);
      }
      Comm& group = mesh.group(set);
      std::vector<int32_t> own = {world.rank()}, members(expected.size());
      ASSERT_EQ(group.size(), static_cast<int>(expected.size())) << set.str();
      EXPECT_EQ(group.size(), shape.extent(set));
      EXPECT_EQ(group.rank(), shape.position(set, world.rank()));
      group.all_gather(Tensor(std::span<int32_t>(own), Shape{1}),
                       Tensor(std::span<int32_t>(members), Shape{group.size()}));
      EXPECT_EQ(members, expected) << set.str();
    }
    EXPECT_EQ(mesh.group({Axis::ZeroShard, Axis::ZeroReplica}).size(), mesh.dp().size());
    EXPECT_THROW(Mesh(world, {.dp = 16, .zero_group = 3}), InternalError);
  });
}

TEST(Mesh, TheEndsAreTheFirstAndTheLastPipelineRank) {
  for (const MeshShape shape :
       {MeshShape{.dp = 2}, MeshShape{.pp = 2, .tp = 2}, MeshShape{.pp = 3, .dp = 2}, MeshShape{.pp = 4}}) {
    testing::run_ranks(shape.size(), [&](Comm& world) {
      Mesh mesh(world, shape);
      const auto is_end = [&](int rank) {
        const int pp = shape.coordinate(Axis::Pp, rank);
        return pp == 0 || pp == shape.pp - 1;
      };
      for (const AxisSet set : {AxisSet{Axis::TiedEnds}, AxisSet{Axis::TiedEnds, Axis::Dp}}) {
        std::vector<int32_t> expected;
        for (int rank = 0; rank < shape.size(); ++rank) {
          bool member = shape.coordinate(Axis::Tp, rank) == mesh.coordinate(Axis::Tp);
          member &= set.has(Axis::Dp) || shape.coordinate(Axis::Dp, rank) == mesh.coordinate(Axis::Dp);
          member &=
              shape.coordinate(Axis::Pp, rank) == mesh.coordinate(Axis::Pp) || (is_end(rank) && is_end(world.rank()));
          if (member) expected.push_back(rank);
        }
        Comm& group = mesh.group(set);
        ASSERT_EQ(group.size(), static_cast<int>(expected.size())) << set.str();
        std::vector<int32_t> own = {world.rank()}, members(group.size());
        group.all_gather(Tensor(std::span<int32_t>(own), Shape{1}),
                         Tensor(std::span<int32_t>(members), Shape{group.size()}));
        EXPECT_EQ(members, expected) << set.str();
      }
    });
  }
}

// Ranks that name different sets all make the union.
TEST(Mesh, MakesTheGroupsThatAnyRankNames) {
  testing::run_ranks(4, [](Comm& world) {
    Mesh mesh(world, {.pp = 2, .dp = 2});
    std::vector<AxisSet> mine{AxisSet{Axis::Dp, Axis::Cp}};
    if (mesh.coordinate(Axis::Pp) == 1) mine.push_back({Axis::Dp, Axis::Cp, Axis::Tp});
    mesh.make_groups(mine);
    const auto made = mesh.traffic();
    EXPECT_TRUE(made.contains("dp*cp") && made.contains("dp*cp*tp"));
    EXPECT_EQ(mesh.group({Axis::Dp, Axis::Cp, Axis::Tp}).size(), 2);
  });
}

TEST(Mesh, CountsTrafficByGroup) {
  testing::run_ranks(4, [](Comm& world) {
    Mesh mesh(world, {.dp = 2, .tp = 2});
    std::vector<float> x(8);
    const Tensor view(std::span<float>(x), Shape{8});
    mesh.tp().all_reduce_sum(view);
    mesh.group({Axis::Dp, Axis::Cp}).all_reduce_sum(view);
    mesh.group({Axis::Dp, Axis::Cp}).all_reduce_sum(view);
    const auto traffic = mesh.traffic();
    EXPECT_EQ(traffic.size(), 3u);  // and the world
    EXPECT_GT(mesh.communication_seconds(), 0.0);
    EXPECT_EQ(traffic.at("tp").bytes_of(Collective::AllReduce), 32);
    EXPECT_EQ(traffic.at("dp*cp").bytes_of(Collective::AllReduce), 64);
  });
}

TEST(Mesh, NeedsAsManyRanksAsItsShape) {
  testing::run_ranks(2, [](Comm& world) { EXPECT_THROW(Mesh(world, {.dp = 3}), InternalError); });
}

}  // namespace
}  // namespace tessera
