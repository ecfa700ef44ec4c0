// Ranks as digits: what an axis, and the groups along a set of axes, are in the space of ranks.
//
// An axis is one digit of the rank, (stride, extent): coordinate = rank / stride % extent. The ranks that differ along
// a set of axes alone form a group. Axes may cut the same ranks in several ways (data-parallel ranks into shards and
// replicas; data-, context- and tensor-parallel ranks together into experts and their replicas): a further factoring is
// a further pair of axes, and nothing here knows which ones there are.
#pragma once

#include <span>
#include <vector>

namespace tessera {

struct RankAxis {
  int stride = 1;
  int extent = 1;

  int coordinate(int rank) const { return rank / stride % extent; }
};

// The groups along a set of axes, in any order. Axes of a set may overlap, as a whole axis and one of its factors do:
// what they share counts once. Throws InternalError unless of every two borders (stride, stride * extent) of the set
// one is a multiple of the other: a change along one axis would else be a change along another, too.
class RankGroups {
 public:
  explicit RankGroups(std::span<const RankAxis> axes);

  int size() const;              // ranks of a group
  int first(int rank) const;     // the lowest rank of the group that `rank` is in: the same for all of its ranks
  int position(int rank) const;  // the rank's number in its group, in the order of ranks

 private:
  std::vector<RankAxis> digits_;  // disjoint, the fastest first
};

}  // namespace tessera
