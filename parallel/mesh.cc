#include "parallel/mesh.h"

#include <fmt/format.h>

#include "parallel/parallel.pb.h"

namespace tessera {
namespace {

// What the user may do about it when `world` ranks cannot be filled by `replica` ranks a replica.
std::string what_would_fit(int64_t replica, int world) {
  const int64_t below = world / replica * replica;
  const int64_t above = below + replica;
  return below == 0 ? fmt::format("start {} ranks or a multiple of it", replica)
                    : fmt::format("start {} or {} ranks", below, above);
}

}  // namespace

const char* name(Axis axis) {
  switch (axis) {
    case Axis::Pp:
      return "pp";
    case Axis::Dp:
      return "dp";
    case Axis::Cp:
      return "cp";
    case Axis::Tp:
      return "tp";
    case Axis::TiedEnds:
      return "tied_ends";
    case Axis::ZeroShard:
      return "zero_shard";
    case Axis::ZeroReplica:
      return "zero_replica";
  }
  return "?";
}

std::string AxisSet::str() const {
  std::string text;
  for (int i = 0; i < kAxes; ++i) {
    const auto axis = static_cast<Axis>(i);
    if (!has(axis)) continue;
    if (!text.empty()) text += '*';
    text += name(axis);
  }
  return text.empty() ? "self" : text;
}

RankAxis MeshShape::axis(Axis axis) const {
  const int shard = zero_group > 0 ? zero_group : dp, neighbours = cp * tp;
  switch (axis) {
    case Axis::Tp:
      return {1, tp};
    case Axis::Cp:
      return {tp, cp};
    case Axis::Dp:
      return {neighbours, dp};
    case Axis::ZeroShard:
      return {neighbours, shard};
    case Axis::ZeroReplica:
      return {neighbours * shard, dp / shard};
    case Axis::Pp:
      return {neighbours * dp, pp};
    case Axis::TiedEnds:
      return {neighbours * dp, pp > 1 ? 2 : 1};
  }
  throw InternalError("no axis of the mesh");
}

RankGroups MeshShape::groups(AxisSet axes) const {
  if (axes.has(Axis::Pp)) axes = axes.without({Axis::TiedEnds});
  std::vector<RankAxis> along;
  for (int i = 0; i < kAxes; ++i) {
    if (axes.has(static_cast<Axis>(i))) along.push_back(axis(static_cast<Axis>(i)));
  }
  return RankGroups(along);
}

// TiedEnds as a digit: the last pipeline rank counts as the one after the first, and those between them are alone.
MeshShape::Member MeshShape::member(AxisSet axes, int rank) const {
  if (!axes.has(Axis::TiedEnds)) return {axes, rank};
  const RankAxis pipeline = axis(Axis::Pp);
  const int stage = pipeline.coordinate(rank);
  if (axes.has(Axis::Pp) || (stage != 0 && stage != pp - 1)) return {axes.without({Axis::TiedEnds}), rank};
  return {axes, stage == 0 ? rank : rank - (pp - 2) * pipeline.stride};
}

int MeshShape::coordinate(Axis axis, int rank) const {
  if (axis == Axis::TiedEnds) return pp > 1 && coordinate(Axis::Pp, rank) == pp - 1 ? 1 : 0;
  return this->axis(axis).coordinate(rank);
}

int MeshShape::extent(AxisSet axes) const { return groups(axes).size(); }

int MeshShape::position(AxisSet axes, int rank) const {
  const Member seen = member(axes, rank);
  return groups(seen.axes).position(seen.rank);
}

int MeshShape::first(AxisSet axes, int rank) const {
  const Member seen = member(axes, rank);
  return groups(seen.axes).first(seen.rank);
}

MeshShape MeshShape::resolve(const ParallelConfig& config, int world) {
  TESSERA_CHECK(world >= 1, "a world of " + std::to_string(world) + " ranks");
  const auto at_least = [](const char* field, int value, int least) {
    if (value < least) throw UsageError(fmt::format("parallel.{} = {}; it must be at least {}", field, value, least));
  };
  at_least("tp", config.tp(), 1);
  at_least("pp", config.pp(), 1);
  at_least("cp", config.cp(), 1);
  at_least("dp", config.dp(), 0);

  const int64_t replica = int64_t{config.tp()} * config.pp() * config.cp();
  const std::string product = fmt::format("tp*pp*cp = {}*{}*{} = {}", config.tp(), config.pp(), config.cp(), replica);
  int64_t dp = config.dp();
  if (dp == 0) {
    if (world % replica != 0) {
      throw UsageError(fmt::format("the world has {} rank{}, which is no multiple of parallel.{}; {}, or change them",
                                   world, world == 1 ? "" : "s", product, what_would_fit(replica, world)));
    }
    dp = world / replica;
  }
  if (replica * dp != world) {
    const std::string change = world % replica == 0
                                   ? fmt::format("set parallel.dp = {} (or 0, for all that are left)", world / replica)
                                   : "change the layout";
    throw UsageError(fmt::format("parallel.tp*pp*cp*dp = {}*{}*{}*{} = {} ranks, but the world has {}; {}, or start {}",
                                 config.tp(), config.pp(), config.cp(), dp, replica * dp, world, change, replica * dp));
  }
  return {.pp = config.pp(),
          .dp = static_cast<int>(dp),
          .cp = config.cp(),
          .tp = config.tp(),
          .zero_group = config.zero_group()};
}

Mesh::Mesh(Comm& world, const MeshShape& shape) : world_(world), shape_(shape) {
  TESSERA_CHECK_EQ(world.size(), shape.size(), "ranks of the world against those of the mesh");
  TESSERA_CHECK_EQ(shape.extent(Axis::ZeroShard) * shape.extent(Axis::ZeroReplica), shape.dp,
                   "dp is the extent of zero_shard times that of zero_replica");
}

Comm& Mesh::group(AxisSet axes) {
  std::unique_ptr<Comm>& group = groups_[axes];
  if (!group) group = world_.split(shape_.first(axes, world_.rank()), axes.str());
  return *group;
}

void Mesh::make_groups(std::span<const AxisSet> sets) {
  std::array<int32_t, AxisSet::kSets> named{};
  for (const AxisSet set : sets) named[set.number()] = 1;
  world_.all_reduce_max(Tensor(std::span<int32_t>(named), Shape{AxisSet::kSets}));
  for (int number = 0; number < AxisSet::kSets; ++number) {
    if (named[number] > 0) group(AxisSet::from_number(number));
  }
}

std::map<std::string, Traffic> Mesh::traffic() const {
  std::map<std::string, Traffic> traffic;
  for (const auto& [axes, group] : groups_) traffic[axes.str()] = group->traffic();
  traffic["world"] = world_.traffic();
  return traffic;
}

double Mesh::communication_seconds() const {
  double seconds = world_.traffic().seconds;
  for (const auto& [axes, group] : groups_) seconds += group->traffic().seconds;
  return seconds;
}

}  // namespace tessera
