// The ranks as a grid with named axes, and the groups along them.
//
// rank = ((pp * DP + dp) * CP + cp) * TP + tp: tp varies fastest, so that tensor-parallel peers are neighbours.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "parallel/comm/comm.h"
#include "parallel/rank_grid.h"

namespace tessera {

class ParallelConfig;  // parallel/parallel.proto

// ZeroShard and ZeroReplica are Dp in two: the `zero_group` neighbouring dp ranks along ZeroShard share out the state of
// one replica, and along ZeroReplica lie the ranks that hold the same share. A further factoring of the ranks is another
// pair of words here, with its strides and extents in MeshShape::axis().
//
// TiedEnds alone is no digit of the rank: along it lie the first and the last pipeline rank, which both hold a tied
// embedding; a pipeline rank between them is alone.
enum class Axis : uint8_t { Pp, TiedEnds, Dp, ZeroReplica, ZeroShard, Cp, Tp };  // a group's name lists them so
constexpr int kAxes = 7;
const char* name(Axis axis);

// A set of axes: the ranks that differ only along them form a group.
class AxisSet {
 public:
  constexpr AxisSet() = default;
  constexpr AxisSet(std::initializer_list<Axis> axes) {
    for (Axis axis : axes) bits_ |= 1u << static_cast<int>(axis);
  }
  constexpr bool has(Axis axis) const { return bits_ >> static_cast<int>(axis) & 1u; }
  constexpr bool operator==(const AxisSet&) const = default;
  constexpr bool operator<(AxisSet other) const { return bits_ < other.bits_; }
  constexpr AxisSet with(Axis axis) const {
    AxisSet more = *this;
    more.bits_ |= 1u << static_cast<int>(axis);
    return more;
  }
  constexpr AxisSet without(AxisSet other) const {
    AxisSet rest = *this;
    rest.bits_ &= ~other.bits_;
    return rest;
  }
  std::string str() const;  // "dp*cp"

  // The set as a number below kSets, so that ranks can tell each other which sets they name.
  static constexpr int kSets = 1 << kAxes;
  constexpr int number() const { return static_cast<int>(bits_); }
  static constexpr AxisSet from_number(int number) {
    AxisSet set;
    set.bits_ = static_cast<unsigned>(number);
    return set;
  }

 private:
  unsigned bits_ = 0;
};

struct MeshShape {
  int pp = 1, dp = 1, cp = 1, tp = 1;
  int zero_group = 0;  // dp ranks along ZeroShard, a divisor of dp; 0: all
  int size() const { return pp * dp * cp * tp; }
  // Where an axis lies in the space of ranks. (TiedEnds as its two ranks see it: as if no rank were between them.)
  RankAxis axis(Axis axis) const;
  int extent(Axis axis) const { return this->axis(axis).extent; }
  int coordinate(Axis axis, int rank) const;  // along TiedEnds: 1 for the last pipeline rank, 0 for all others
  // The group along these axes: how many ranks it has (with TiedEnds: as its two ranks see it), this rank's number in
  // it, and the lowest rank of it, which tells it from other groups along the same axes.
  int extent(AxisSet axes) const;
  int position(AxisSet axes, int rank) const;
  int first(AxisSet axes, int rank) const;
  // The config's shape, dp = 0 replaced by what is left of `world` ranks. Throws UsageError when the product does not
  // match.
  static MeshShape resolve(const ParallelConfig& config, int world);

 private:
  struct Member {
    AxisSet axes;
    int rank;
  };
  Member member(AxisSet axes, int rank) const;
  RankGroups groups(AxisSet axes) const;
};

class Mesh {
 public:
  // Collective over world, which must outlive the mesh; world.size() == shape.size().
  Mesh(Comm& world, const MeshShape& shape);

  const MeshShape& shape() const { return shape_; }
  Comm& world() const { return world_; }
  int extent(Axis axis) const { return shape_.extent(axis); }
  int coordinate(Axis axis) const { return shape_.coordinate(axis, world_.rank()); }

  // The group along these axes through this rank, in rank order. Made on first need; every rank of the world must then
  // ask for the same one (call it before step one).
  Comm& group(AxisSet axes);

  // Makes every group that any rank of the world names here: what pipeline ranks, which hold different parameters, call
  // before each asks for its own. Collective.
  void make_groups(std::span<const AxisSet> sets);

  Comm& tp() { return group({Axis::Tp}); }
  Comm& cp() { return group({Axis::Cp}); }
  Comm& dp() { return group({Axis::Dp}); }
  Comm& pp() { return group({Axis::Pp}); }

  // Bytes, calls and seconds so far, by group ("tp", "dp*cp", ...; the world is "world").
  std::map<std::string, Traffic> traffic() const;
  double communication_seconds() const;  // of all groups

 private:
  Comm& world_;
  MeshShape shape_;
  std::map<AxisSet, std::unique_ptr<Comm>> groups_;
};

}  // namespace tessera
