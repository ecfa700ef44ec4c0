#include "optim/clip.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace tessera {
namespace {

TEST(ClipScale, BringsTheNormDownToTheLimitAndNeverUp) {
  EXPECT_EQ(clip_scale(4.0, 1.0), 0.25);
  EXPECT_EQ(clip_scale(1.0, 1.0), 1.0);
  EXPECT_EQ(clip_scale(0.5, 1.0), 1.0);
  EXPECT_EQ(clip_scale(0.0, 1.0), 1.0);
}

TEST(ClipScale, ZeroTurnsClippingOff) {
  EXPECT_EQ(clip_scale(1e30, 0.0), 1.0);
  EXPECT_EQ(clip_scale(std::nan(""), 0.0), 1.0);
}

TEST(ClipScale, ANormThatIsNotFiniteIsANumericalError) {
  EXPECT_THROW(clip_scale(std::nan(""), 1.0), NumericalError);
  EXPECT_THROW(clip_scale(std::numeric_limits<double>::infinity(), 1.0), NumericalError);
}

}  // namespace
}  // namespace tessera
