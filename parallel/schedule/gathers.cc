#include "parallel/schedule/gathers.h"

#include <algorithm>

namespace tessera {
namespace {

bool overlap(const Action& a, const Action& b) {
  return a.stage == b.stage && a.blocks.first < b.blocks.last && b.blocks.first < a.blocks.last;
}

}  // namespace

bool feeds_forward(const Schedule& list, size_t at) {
  const Action& gather = list[at];
  for (size_t i = at + 1; i < list.size(); ++i) {
    const Action& a = list[i];
    if (!overlap(a, gather)) continue;
    if (a.kind == ActionKind::Release) return false;
    if (a.kind == ActionKind::Forward) return true;
  }
  return false;
}

bool reduces_last(const Schedule& list, size_t at) {
  return std::none_of(list.begin() + static_cast<std::ptrdiff_t>(at) + 1, list.end(),
                      [&](const Action& a) { return a.kind == ActionKind::Reduce && overlap(a, list[at]); });
}

}  // namespace tessera
