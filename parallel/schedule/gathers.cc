#include "parallel/schedule/gathers.h"

#include <algorithm>

namespace tessera {
namespace {

bool overlap(const Action& a, const Action& b) {
  return a.stage == b.stage && a.blocks.first < b.blocks.last && b.blocks.first < a.blocks.last;
}

}  // namespace

GatherFor gather_for(const Schedule& list, size_t at) {
  const Action& gather = list[at];
  for (size_t i = at + 1; i < list.size(); ++i) {
    const Action& a = list[i];
    if (!overlap(a, gather)) continue;
    if (a.kind == ActionKind::Release) return GatherFor::Backward;
    if (a.kind == ActionKind::Forward) return GatherFor::Forward;
  }
  return GatherFor::Backward;
}

ReduceTurn reduce_turn(const Schedule& list, size_t at) {
  const bool more = std::any_of(list.begin() + static_cast<std::ptrdiff_t>(at) + 1, list.end(),
                                [&](const Action& a) { return a.kind == ActionKind::Reduce && overlap(a, list[at]); });
  return more ? ReduceTurn::Earlier : ReduceTurn::Last;
}

}  // namespace tessera
