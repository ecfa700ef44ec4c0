#include "parallel/mesh.h"

#include <fmt/format.h>

#include "parallel/parallel.pb.h"

namespace tessera {
namespace {

// Slowest first, in the order of ranks.
constexpr Axis kParts[] = {Axis::Pp, Axis::ZeroReplica, Axis::ZeroShard, Axis::Cp, Axis::Tp};
constexpr Axis kAllAxes[] = {Axis::Pp,        Axis::TiedEnds, Axis::Dp, Axis::ZeroReplica,
                             Axis::ZeroShard, Axis::Cp,       Axis::Tp};

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
  for (Axis axis : kAllAxes) {
    if (!has(axis)) continue;
    if (!text.empty()) text += '*';
    text += name(axis);
  }
  return text.empty() ? "self" : text;
}

int MeshShape::extent(Axis axis) const {
  switch (axis) {
    case Axis::Pp:
      return pp;
    case Axis::Dp:
      return dp;
    case Axis::Cp:
      return cp;
    case Axis::Tp:
      return tp;
    case Axis::TiedEnds:
      return pp > 1 ? 2 : 1;
    case Axis::ZeroShard:
      return zero_group > 0 ? zero_group : dp;
    case Axis::ZeroReplica:
      return dp / extent(Axis::ZeroShard);
  }
  return 1;
}

int MeshShape::extent(AxisSet axes) const {
  int ranks = 1;
  for (Axis axis : kAllAxes) ranks *= axes.has(axis) ? extent(axis) : 1;
  return ranks;
}

int MeshShape::position(AxisSet axes, int rank) const {
  int position = 0;
  for (Axis axis : kAllAxes) {
    if (axes.has(axis)) position = position * extent(axis) + coordinate(axis, rank);
  }
  return position;
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

int MeshShape::coordinate(Axis axis, int rank) const {
  switch (axis) {
    case Axis::Pp:
      return rank / (tp * cp * dp);
    case Axis::Dp:
      return rank / (tp * cp) % dp;
    case Axis::Cp:
      return rank / tp % cp;
    case Axis::Tp:
      return rank % tp;
    case Axis::TiedEnds:
      return pp > 1 && coordinate(Axis::Pp, rank) == pp - 1 ? 1 : 0;
    case Axis::ZeroShard:
      return coordinate(Axis::Dp, rank) % extent(Axis::ZeroShard);
    case Axis::ZeroReplica:
      return coordinate(Axis::Dp, rank) / extent(Axis::ZeroShard);
  }
  return 0;
}

Mesh::Mesh(Comm& world, const MeshShape& shape) : world_(world), shape_(shape) {
  TESSERA_CHECK_EQ(world.size(), shape.size(), "ranks of the world against those of the mesh");
  TESSERA_CHECK_EQ(shape.extent(Axis::ZeroShard) * shape.extent(Axis::ZeroReplica), shape.dp,
                   "dp is the extent of zero_shard times that of zero_replica");
}

Comm& Mesh::group(AxisSet axes) {
  std::unique_ptr<Comm>& group = groups_[axes];
  if (!group) {
    // Ranks with equal coordinates along all other axes get the same color.
    int color = 0;
    for (Axis axis : kParts) {
      if (axes.has(axis) || ((axis == Axis::ZeroShard || axis == Axis::ZeroReplica) && axes.has(Axis::Dp))) continue;
      // Along TiedEnds the last pipeline rank counts as the first.
      const bool joined = axis == Axis::Pp && axes.has(Axis::TiedEnds) && coordinate(Axis::Pp) == extent(Axis::Pp) - 1;
      color = color * extent(axis) + (joined ? 0 : coordinate(axis));
    }
    group = world_.split(color, axes.str());
  }
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
