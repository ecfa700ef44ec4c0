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

namespace tessera {

class ParallelConfig;  // parallel/parallel.proto

// Three are no axes of the grid. Along TiedEnds lie the first and the last pipeline rank, which both hold a tied
// embedding; a rank between them is alone. ZeroShard and ZeroReplica are Dp in two: the `zero_group` neighbouring dp
// ranks along ZeroShard share out the state of one replica, and along ZeroReplica lie the ranks that hold the same share.
enum class Axis : uint8_t { Pp, Dp, Cp, Tp, TiedEnds, ZeroShard, ZeroReplica };
constexpr int kAxes = 4;  // of the grid
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

  // As a number below kSets, so that ranks can tell each other.
  static constexpr int kSets = 128;
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
  int extent(Axis axis) const;
  // Ranks of a group along these axes, and this rank's number in it. (Along TiedEnds as the ends themselves have it.)
  int extent(AxisSet axes) const;
  int position(AxisSet axes, int rank) const;
  // This shape with dp = 0 replaced by what is left of `world` ranks. Throws UsageError when the product does not
  // match.
  static MeshShape resolve(const ParallelConfig& config, int world);
  int coordinate(Axis axis, int rank) const;
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
