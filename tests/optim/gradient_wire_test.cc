#include "optim/gradient_wire.h"

#include <gtest/gtest.h>

#include "tensor/context/random.h"
#include "tests/support/device.h"
#include "tests/support/ranks.h"

namespace tessera {
namespace {

float gradient(int rank, int64_t i) {
  return static_cast<float>(RandomStream(7, "gradient").normal(1000000 * rank + i));
}

using testing::kDevice;
using testing::run_ranks;

// Work of the context and of its groups is in one order.
Context& linked_or(Context& own) {
  Context* linked = testing::linked_context();
  return linked != nullptr ? *linked : own;
}

// The part of each rank, naively: the ranks' elements, rounded or not, in rank order.
TEST(GradientWire, PartsAreSumsInRankOrder) {
  for (const WireFormat format : {WireFormat::Full, WireFormat::Bf16}) {
    // Parts of no element, of one, and of more than one message holds.
    for (const int64_t part : {int64_t{0}, int64_t{1}, int64_t{1000}, int64_t{1100000}}) {
      for (const int n : {1, 2, 3, 4}) {
        if (part > 1000 && n != 2) continue;
        run_ranks(n, [&](Comm& world) {
          Context own(testing::on_device({.threads = 1}));
          Context& context = linked_or(own);
          Arena tally = Arena::tally();
          GradientWire(format, DType::F32, n, tally);
          Arena arena("wire", kDevice, tally.used());
          const GradientWire wire(format, DType::F32, n, arena);
          EXPECT_EQ(arena.used(), arena.capacity());
          testing::SharedVector<float> x(static_cast<size_t>(n * part));
          for (int64_t i = 0; i < n * part; ++i) x[i] = gradient(world.rank(), i);
          wire.start(context, world, Tensor(x.data(), Shape{n, part}, DType::F32, kDevice)).wait();
          testing::settle();
          for (int64_t i = world.rank() * part; i < (world.rank() + 1) * part; ++i) {
            float sum = 0;
            for (int r = 0; r < n; ++r) {
              const float g = gradient(r, i);
              const float sent = format == WireFormat::Bf16 && n > 1 ? static_cast<float>(bf16(g)) : g;
              sum = r == 0 ? sent : sum + sent;
            }
            ASSERT_EQ(x[i], sum) << i;
          }
          EXPECT_EQ(world.traffic().total_bytes(), GradientWire::sent(format, DType::F32, part, n));
        });
      }
    }
  }
}

TEST(GradientWire, SumsOfBf16HaveTheErrorOfOneRoundingAnElement) {
  constexpr int kRanks = 8;
  constexpr int64_t kPart = 64;
  run_ranks(kRanks, [&](Comm& world) {
    Context own(testing::on_device({.threads = 1}));
    Context& context = linked_or(own);
    Arena arena("wire", kDevice, 16 << 20);
    const GradientWire wire(WireFormat::Bf16, DType::F32, kRanks, arena);
    testing::SharedVector<float> x(kRanks * kPart);
    for (size_t i = 0; i < x.size(); ++i) x[i] = gradient(world.rank(), static_cast<int64_t>(i));
    wire.start(context, world, Tensor(x.data(), Shape{kRanks * kPart}, DType::F32, kDevice)).wait();
    testing::settle();
    for (int64_t i = world.rank() * kPart; i < (world.rank() + 1) * kPart; ++i) {
      double sum = 0, sizes = 0;
      for (int r = 0; r < kRanks; ++r) {
        sum += gradient(r, i);
        sizes += std::abs(gradient(r, i));
      }
      EXPECT_NEAR(x[i], sum, sizes * (unit_roundoff(DType::BF16) + kRanks * unit_roundoff(DType::F32)));
    }
  });
}

TEST(GradientWire, RefusesSumsInF64) {
  Arena tally = Arena::tally();
  EXPECT_THROW(GradientWire(WireFormat::Bf16, DType::F64, 2, tally), InternalError);
}

}  // namespace
}  // namespace tessera
