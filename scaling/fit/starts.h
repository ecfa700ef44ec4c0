// What the laws share in spreading starts.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "scaling/fit/form.h"

namespace tessera {

// A factor that non-negative least squares put to 0 starts as a term of this share of the loss: its logarithm must be
// finite, and a fit can bring it back.
inline constexpr double kSmallShare = 1e-4;

// Calls visit(point) for every combination of values[0] x values[1] x ...
template <class Visit>
void for_each_in_grid(const std::vector<std::vector<double>>& values, const Visit& visit) {
  std::vector<size_t> index(values.size(), 0);
  std::vector<double> point(values.size());
  while (true) {
    for (size_t k = 0; k < values.size(); ++k) point[k] = values[k][index[k]];
    visit(std::span<const double>(point));
    size_t k = 0;
    while (k < values.size() && ++index[k] == values[k].size()) index[k++] = 0;
    if (k == values.size()) return;
  }
}

class StartList {
 public:
  void add(Theta theta, double error) { entries_.push_back({error, std::move(theta)}); }
  std::vector<Theta> sorted() {
    std::stable_sort(entries_.begin(), entries_.end(),
                     [](const Entry& a, const Entry& b) { return a.error < b.error; });
    std::vector<Theta> result;
    for (Entry& entry : entries_) result.push_back(std::move(entry.theta));
    return result;
  }

 private:
  struct Entry {
    double error;
    Theta theta;
  };
  std::vector<Entry> entries_;
};

}  // namespace tessera
