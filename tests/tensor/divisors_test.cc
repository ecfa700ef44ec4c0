#include "tensor/divisors.h"

#include <gtest/gtest.h>

#include <limits>

namespace tessera::testing {
namespace {

TEST(Divisors, AreListedInOrder) {
  EXPECT_EQ(divisors(1), "1");
  EXPECT_EQ(divisors(7), "1, 7");
  EXPECT_EQ(divisors(12), "1, 2, 3, 4, 6, 12");
  EXPECT_EQ(divisors(16), "1, 2, 4, 8, 16");
}

TEST(Divisors, LongListsAreCut) {
  EXPECT_EQ(divisors(5040), "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 15, 16, 18, ..., 5040");
  EXPECT_EQ(divisors(std::numeric_limits<int32_t>::max()), "1, 2147483647");  // a prime, soon found to be one
}

}  // namespace
}  // namespace tessera::testing
