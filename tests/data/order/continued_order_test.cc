#include "data/order/continued_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "tests/data/shards/shards.h"

namespace tessera {
namespace {

TEST(ContinuedOrder, OneLengthIsSourceOrderEpochAfterEpoch) {
  const ContinuedOrder order(103, 7, "web", {{8, 5}});
  const SourceOrder whole(12, 7, "web");
  for (int64_t i = 0; i < 40; ++i) EXPECT_EQ(order(i), whole(i));
  EXPECT_EQ(order.left(), 0);
}

TEST(ContinuedOrder, AChangeBetweenEpochsIsTheNextEpochOfTheOtherLength) {
  const ContinuedOrder order(103, 7, "web", {{8, 24}, {5, 0}});
  const SourceOrder whole(20, 7, "web");
  EXPECT_EQ(order.left(), 0);
  for (int64_t i = 0; i < 50; ++i) EXPECT_EQ(order(i), whole(2 * 20 + i));
}

// Any lengths, in any epochs: what an epoch gives it gives once, and a whole epoch gives everything.
TEST(ContinuedOrder, WithinAnEpochNoTokenIsGivenTwice) {
  std::mt19937 random(3);
  int64_t gave_rest = 0, changed_in_rest = 0;
  for (int trial = 0; trial < 400; ++trial) {
    const int64_t tokens = 60 + static_cast<int64_t>(random() % 600);
    std::vector<Stretch> stretches;
    std::set<int64_t> epoch;  // tokens that it has given
    int64_t whole_before = 0;
    for (int change = 0; change < 5; ++change) {
      const auto length = static_cast<int64_t>(1 + random() % 40);
      if (!stretches.empty() && stretches.back().sequence_length == length) continue;
      stretches.push_back({length, 0});
      const ContinuedOrder order(tokens, 11, "s", stretches);
      const int64_t samples = tokens / length;
      int64_t possible = 0;  // samples of which nothing was given
      for (int64_t s = 0; s < samples; ++s) {
        const auto first = epoch.lower_bound(s * length);
        possible += first == epoch.end() || *first >= (s + 1) * length;
      }
      EXPECT_EQ(order.left(), epoch.empty() ? 0 : possible) << "it is all that can be given";
      const auto given = static_cast<int64_t>(1 + random() % static_cast<unsigned>(order.left() + 2 * samples));
      for (int64_t i = 0; i < given; ++i) {
        const bool begins = i >= order.left() && (i - order.left()) % samples == 0;
        if (begins && !(i == 0 && epoch.empty())) {
          epoch.clear();
          ++whole_before;
        }
        const int64_t sample = order(i);
        ASSERT_GE(sample, 0);
        ASSERT_LT(sample, samples);
        for (int64_t t = sample * length; t < (sample + 1) * length; ++t)
          ASSERT_TRUE(epoch.insert(t).second) << "trial " << trial << " change " << change << " token " << t;
      }
      gave_rest += order.left() > 0;
      changed_in_rest += given < order.left();
      // An epoch that has given all of its samples is over.
      if (given > order.left() && (given - order.left()) % samples == 0) epoch.clear();
      stretches.back().samples = given;
    }
  }
  EXPECT_GT(gave_rest, 100);
  EXPECT_GT(changed_in_rest, 20);
}

TEST(ContinuedOrder, TheRestIsShuffled) {
  const ContinuedOrder order(8000, 5, "s", {{8, 200}, {4, 0}});
  ASSERT_EQ(order.left(), 2 * 800);
  std::vector<int64_t> rest;
  for (int64_t i = 0; i < order.left(); ++i) rest.push_back(order(i));
  EXPECT_FALSE(std::is_sorted(rest.begin(), rest.end()));
  EXPECT_EQ(std::set<int64_t>(rest.begin(), rest.end()).size(), rest.size());
}

}  // namespace
}  // namespace tessera
