// Which source the global sample g comes from, and its number among that source's samples, as a pure function of
// (weights, g): nothing is drawn and nothing is counted along the way.
//
// The sources are the leaves of a balanced binary tree. At a node whose left side weighs L of W, the first g samples
// send floor(g * L / W) to the left and the rest to the right, exactly, in 128-bit integers. Both counts never fall
// and their sum is g, so each sample goes to exactly one side; by induction to exactly one source. A source's count
// after g samples differs from g * w / W by less than 1 for each level of the tree.
#pragma once

#include <cstdint>
#include <vector>

namespace tessera {

class Mixture {
 public:
  struct Place {
    int source = 0;
    int64_t index = 0;  // among the samples of this source
  };

  // Weights in any fixed-point unit, each below 2^62 in sum with the others, at least one above 0; a source of weight
  // 0 is never chosen.
  explicit Mixture(std::vector<uint64_t> weights);

  Place locate(int64_t g) const;               // g in [0, 2^62)
  int64_t count(int source, int64_t g) const;  // samples of a source among the first g

  int sources() const { return static_cast<int>(sums_.size()) - 1; }

 private:
  uint64_t weight(int begin, int end) const { return sums_[end] - sums_[begin]; }

  std::vector<uint64_t> sums_;  // [sources + 1]: of the weights before
};

// Shares of one whole in units of 2^-32, each weight rounded to nearest and, when above 0, at least one unit. Throws
// UsageError naming the weight: negative, not finite, or none above 0.
std::vector<uint64_t> fixed_point_weights(const std::vector<double>& weights);

}  // namespace tessera
