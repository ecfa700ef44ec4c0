#include "data/order/mixture.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "tensor/check.h"

namespace tessera {
namespace {

__extension__ using uint128 = unsigned __int128;

// floor(g * part / whole)
int64_t share(int64_t g, uint64_t part, uint64_t whole) {
  return static_cast<int64_t>(static_cast<uint128>(g) * part / whole);
}

}  // namespace

Mixture::Mixture(std::vector<uint64_t> weights) : sums_(weights.size() + 1) {
  constexpr uint64_t kMost = uint64_t{1} << 62;
  for (size_t i = 0; i < weights.size(); ++i) {
    TESSERA_CHECK(weights[i] < kMost && sums_[i] + weights[i] < kMost, "weights below 2^62 in sum");
    sums_[i + 1] = sums_[i] + weights[i];
  }
  TESSERA_CHECK(sums_.back() > 0, "a mixture needs a weight above 0");
}

Mixture::Place Mixture::locate(int64_t g) const {
  TESSERA_CHECK(g >= 0 && g < int64_t{1} << 62, "a sample number");
  int begin = 0, end = sources();
  while (end - begin > 1) {
    const int middle = (begin + end) / 2;
    const uint64_t left = weight(begin, middle), whole = weight(begin, end);
    const int64_t before = share(g, left, whole), after = share(g + 1, left, whole);
    if (after > before) {
      end = middle;
      g = before;
    } else {
      begin = middle;
      g -= before;
    }
  }
  return {begin, g};
}

int64_t Mixture::count(int source, int64_t g) const {
  TESSERA_CHECK(source >= 0 && source < sources(), "a source of the mixture");
  int begin = 0, end = sources();
  while (end - begin > 1) {
    const int middle = (begin + end) / 2;
    const uint64_t whole = weight(begin, end);
    const int64_t left = whole == 0 ? 0 : share(g, weight(begin, middle), whole);
    if (source < middle) {
      end = middle;
      g = left;
    } else {
      begin = middle;
      g -= left;
    }
  }
  return weight(begin, end) == 0 ? 0 : g;
}

std::vector<uint64_t> fixed_point_weights(const std::vector<double>& weights) {
  double sum = 0;
  for (const double weight : weights) {
    if (!(weight >= 0) || !std::isfinite(weight))
      throw UsageError(fmt::format("the weight of a data source is {}; it must be a number of at least 0", weight));
    sum += weight;
  }
  if (!(sum > 0) || !std::isfinite(sum))
    throw UsageError(fmt::format("the weights of the data sources add up to {}; at least one must be above 0", sum));
  std::vector<uint64_t> fixed;
  for (const double weight : weights) {
    const auto units = static_cast<uint64_t>(std::llround(weight / sum * 0x1p32));
    fixed.push_back(weight > 0 ? std::max<uint64_t>(units, 1) : 0);
  }
  return fixed;
}

}  // namespace tessera
