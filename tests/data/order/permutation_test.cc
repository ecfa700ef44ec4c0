#include "data/order/permutation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <vector>

namespace tessera {
namespace {

std::vector<int64_t> image(int64_t n, uint64_t key) {
  const Permutation permutation(n, key);
  std::vector<int64_t> out(n);
  for (int64_t i = 0; i < n; ++i) out[i] = permutation(i);
  return out;
}

TEST(Permutation, IsABijectionForEveryN) {
  for (int64_t n = 1; n <= 1200; ++n) {
    std::vector<int64_t> out = image(n, 77 + n);
    std::sort(out.begin(), out.end());
    for (int64_t i = 0; i < n; ++i) ASSERT_EQ(out[i], i) << "n = " << n;
  }
  for (const int64_t n : {65535, 65536, 65537, 100003}) {
    std::vector<bool> seen(n);
    for (const int64_t value : image(n, 5)) {
      ASSERT_TRUE(value >= 0 && value < n && !seen[value]);
      seen[value] = true;
    }
  }
}

TEST(Permutation, ReachesTheLargestSizes) {
  for (const int64_t n : {(int64_t{1} << 62), (int64_t{1} << 62) - 1, (int64_t{1} << 60) + 1, (int64_t{1} << 33) + 7}) {
    const Permutation permutation(n, 3);
    std::vector<int64_t> out;
    for (int64_t i = 0; i < 1000; ++i) {
      out.push_back(permutation(i));
      out.push_back(permutation(n - 1 - i));
    }
    std::sort(out.begin(), out.end());
    EXPECT_EQ(std::adjacent_find(out.begin(), out.end()), out.end());
    EXPECT_GE(out.front(), 0);
    EXPECT_LT(out.back(), n);
    // 2000 uniform numbers: the chance that none lies above (1 - 1/50) n is (49/50)^2000 < 1e-17.
    EXPECT_GT(out.back(), n - n / 50);
    EXPECT_LT(out.front(), n / 50);
  }
}

// Over many keys all permutations of a small set are about equally likely: chi-squared over n! classes.
TEST(Permutation, SmallOnesAreAllEquallyLikely) {
  for (const int n : {2, 3, 4, 5, 6}) {
    int classes = 1;
    for (int i = 2; i <= n; ++i) classes *= i;
    const int per_class = 100, draws = classes * per_class;
    std::map<std::vector<int64_t>, int> counts;
    for (int key = 0; key < draws; ++key) ++counts[image(n, key * 0x9E3779B97F4A7C15)];
    EXPECT_EQ(counts.size(), static_cast<size_t>(classes)) << "n = " << n;
    double chi_squared = 0;
    for (const auto& [permutation, count] : counts)
      chi_squared += std::pow(count - per_class, 2) / static_cast<double>(per_class);
    // Mean k, standard deviation sqrt(2 k) for k degrees of freedom; six deviations are beyond chance.
    const double k = classes - 1;
    EXPECT_LT(chi_squared, k + 6 * std::sqrt(2 * k)) << "n = " << n;
  }
}

TEST(Permutation, LooksLikeChance) {
  // Sum of i * p(i), a rank correlation: for a random permutation its standard deviation is about n^2.5 / 12.
  const int64_t n = 10000;
  for (uint64_t key = 0; key < 20; ++key) {
    const auto out = image(n, key);
    double sum = 0;
    int64_t fixed = 0, neighbours = 0;
    for (int64_t i = 0; i < n; ++i) {
      sum += (static_cast<double>(i) - (n - 1) / 2.0) * (static_cast<double>(out[i]) - (n - 1) / 2.0);
      fixed += out[i] == i;
      neighbours += i > 0 && std::abs(out[i] - out[i - 1]) == 1;
    }
    EXPECT_LT(std::abs(sum), 5 * std::pow(n, 2.5) / 12);
    EXPECT_LE(fixed, 10) << "Poisson of mean 1";
    EXPECT_LE(neighbours, 14) << "Poisson of mean 2";
  }
}

TEST(SourceOrder, EachEpochIsAPermutationOfItsOwn) {
  const int64_t n = 1000;
  const SourceOrder order(n, 1, "books");
  std::vector<std::vector<int64_t>> epochs;
  for (int64_t e = 0; e < 3; ++e) {
    std::vector<int64_t> epoch;
    for (int64_t i = 0; i < n; ++i) epoch.push_back(order(e * n + i));
    std::vector<int64_t> sorted = epoch, all(n);
    std::sort(sorted.begin(), sorted.end());
    std::iota(all.begin(), all.end(), 0);
    EXPECT_EQ(sorted, all);
    epochs.push_back(epoch);
  }
  EXPECT_NE(epochs[0], epochs[1]);
  EXPECT_NE(epochs[1], epochs[2]);
  const SourceOrder other_name(n, 1, "web"), other_seed(n, 2, "books"), same(n, 1, "books");
  int name_hits = 0, seed_hits = 0;
  for (int64_t i = 0; i < n; ++i) {
    EXPECT_EQ(same(i), epochs[0][i]);
    name_hits += other_name(i) == epochs[0][i];
    seed_hits += other_seed(i) == epochs[0][i];
  }
  EXPECT_LE(name_hits, 10);
  EXPECT_LE(seed_hits, 10);
}

}  // namespace
}  // namespace tessera
