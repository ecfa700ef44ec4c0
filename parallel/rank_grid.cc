#include "parallel/rank_grid.h"

#include <fmt/format.h>

#include <algorithm>

#include "tensor/check.h"

namespace tessera {

RankGroups::RankGroups(std::span<const RankAxis> axes) {
  std::vector<RankAxis> sorted(axes.begin(), axes.end());
  std::erase_if(sorted, [](const RankAxis& axis) { return axis.extent == 1; });
  std::vector<int> borders;
  for (const RankAxis& axis : sorted) {
    borders.push_back(axis.stride);
    borders.push_back(axis.stride * axis.extent);
  }
  std::sort(borders.begin(), borders.end());
  for (size_t i = 1; i < borders.size(); ++i) {
    TESSERA_CHECK(
        borders[i] % borders[i - 1] == 0,
        fmt::format("axes of one group cut the ranks at {} and at {}; the one must be a multiple of the other",
                    borders[i - 1], borders[i]));
  }
  std::sort(sorted.begin(), sorted.end(), [](const RankAxis& a, const RankAxis& b) { return a.stride < b.stride; });
  int end = 1;  // the digits so far lie below it
  for (const RankAxis& axis : sorted) {
    const int begin = std::max(axis.stride, end), axis_end = axis.stride * axis.extent;
    if (axis_end <= begin) continue;  // digits before have it
    digits_.push_back({begin, axis_end / begin});
    end = axis_end;
  }
}

int RankGroups::size() const {
  int ranks = 1;
  for (const RankAxis& digit : digits_) ranks *= digit.extent;
  return ranks;
}

int RankGroups::first(int rank) const {
  int first = rank;
  for (const RankAxis& digit : digits_) first -= digit.coordinate(rank) * digit.stride;
  return first;
}

int RankGroups::position(int rank) const {
  int position = 0, weight = 1;
  for (const RankAxis& digit : digits_) {
    position += digit.coordinate(rank) * weight;
    weight *= digit.extent;
  }
  return position;
}

}  // namespace tessera
