// What passes share: places in a list, and actions to put there.
#pragma once

#include <vector>

#include "parallel/schedule/schedule.h"

namespace tessera {

// Actions to put around those of one list, collected first and merged in once.
class Insertions {
 public:
  explicit Insertions(const Schedule& list) : list_(list), before_(list.size()), after_(list.size()) {}

  void before(size_t at, const Action& action) { before_[at].push_back(action); }
  void after(size_t at, const Action& action) { after_[at].push_back(action); }

  Schedule result() const {
    Schedule merged;
    merged.reserve(2 * list_.size());
    for (size_t i = 0; i < list_.size(); ++i) {
      merged.insert(merged.end(), before_[i].begin(), before_[i].end());
      merged.push_back(list_[i]);
      merged.insert(merged.end(), after_[i].begin(), after_[i].end());
    }
    return merged;
  }

 private:
  const Schedule& list_;
  std::vector<Schedule> before_, after_;
};

// Whether messages can hide behind the action.
inline bool takes_time(ActionKind kind) { return is_compute(kind) || kind == ActionKind::Recompute; }

inline bool same_but_blocks(const Action& a, const Action& b) {
  return a.kind == b.kind && a.stage == b.stage && a.microbatch == b.microbatch;
}

// Where the compute before the one at `at` begins, blocks of one stage taken together; `at` if there is none.
inline size_t compute_before(const Schedule& list, size_t at) {
  size_t found = at;
  for (size_t i = at; i-- > 0;) {
    if (!takes_time(list[i].kind)) continue;
    if (found != at && !same_but_blocks(list[i], list[found])) break;
    found = i;
  }
  return found;
}

}  // namespace tessera
