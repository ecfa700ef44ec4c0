#include "model/shape/context_exchange.h"

#include <gtest/gtest.h>

#include "tensor/check.h"

namespace tessera {
namespace {

using Outer = ContextExchange::Outer;

TEST(ContextExchange, OneForAllBlocksOrAPlan) {
  const ContextExchange gather{}, ring{.outer = Outer::Ring}, ulysses{.trading = ContextExchange::kAll},
      hybrid{.outer = Outer::Ring, .trading = 2};
  EXPECT_EQ(context_exchange_plan("gather", 2), (std::vector<ContextExchange>{gather, gather}));
  EXPECT_EQ(context_exchange_plan("ulysses", 1), (std::vector<ContextExchange>{ulysses}));
  EXPECT_EQ(context_exchange_plan("ulysses-ring:2", 2), (std::vector<ContextExchange>{hybrid, hybrid}));
  EXPECT_EQ(context_exchange_plan("ring:0-1,ulysses-ring:2:3,ulysses:4", 6),
            (std::vector<ContextExchange>{ring, ring, gather, hybrid, ulysses, gather}));
  for (const ContextExchange& exchange : {gather, ring, ulysses, hybrid})
    EXPECT_EQ(context_exchange_plan(name(exchange), 1).front(), exchange);
}

TEST(ContextExchange, RefusesWhatIsNoPlan) {
  for (const char* text : {"", "alltoall", "ring:", "ring:2-1", "ring:0-9", "ulysses-ring", "ulysses-ring:0",
                           "ulysses:2:9", "ulysses-ring:x", "ring,gather", "ring:0-2,gather:1"}) {
    EXPECT_THROW(context_exchange_plan(text, 5), UsageError) << text;
  }
  try {
    context_exchange_plan("ringg", 5);
    FAIL();
  } catch (const UsageError& error) {
    EXPECT_STREQ(error.what(),
                 "parallel.context_exchange = ringg: 'ringg' is no mode with blocks; choose gather, ring, ulysses or "
                 "ulysses-ring:2, or a plan like ring:0-3,ulysses-ring:2:4-7 over blocks 0 to 4");
  }
}

TEST(ContextExchange, HeadsMustFitTheRanksThatTradeThem) {
  const ContextExchange ulysses{.trading = ContextExchange::kAll}, hybrid{.outer = Outer::Ring, .trading = 2};
  EXPECT_NO_THROW(check_exchange(ulysses, 4, 8, 2));  // two ranks a key/value head
  EXPECT_NO_THROW(check_exchange({}, 64, 1, 1));
  EXPECT_NO_THROW(check_exchange({.outer = Outer::Ring}, 64, 1, 1));
  EXPECT_THROW(check_exchange(ulysses, 4, 2, 2), UsageError);  // too few
  EXPECT_THROW(check_exchange(hybrid, 3, 8, 2), UsageError);   // units of two do not fill three ranks
  EXPECT_THROW(check_exchange(ulysses, 2, 12, 3), UsageError) << "six heads are a group of four and a half one";
  try {
    check_exchange(ulysses, 8, 4, 4);
    FAIL();
  } catch (const UsageError& error) {
    EXPECT_STREQ(error.what(),
                 "parallel.context_exchange = ulysses: 8 ranks share 4 query heads and 4 key-value heads of a "
                 "tensor-parallel rank; each needs an equal number of query heads, whole groups of 1 or an equal part "
                 "of one; choose gather, ring, or ulysses-ring:N with N from 1, 2, 4");
  }
}

TEST(ContextExchange, ARankHasTokensOfItsUnitAndHeadsOfItsOwn) {
  const ExchangeShape shape = exchange_shape({.outer = Outer::Ring, .trading = 2}, 8, 5, 128, 16, 4, 64, DType::BF16);
  EXPECT_EQ(shape.units.units, 4);
  EXPECT_EQ(shape.units.unit, 2);
  EXPECT_EQ(shape.units.ranks, 2);
  EXPECT_EQ(shape.units.slots, 256);
  EXPECT_EQ(shape.member, 1);
  EXPECT_EQ(shape.q_heads, 8);
  EXPECT_EQ(shape.kv_heads, 2);
  EXPECT_EQ(shape.rank_of(3), 7);
  const ExchangeShape copies = exchange_shape({.trading = ContextExchange::kAll}, 8, 5, 128, 16, 4, 64, DType::BF16);
  EXPECT_EQ(copies.q_heads, 2);
  EXPECT_EQ(copies.kv_heads, 1);
  EXPECT_EQ(copies.units.units, 1);
}

TEST(ContextExchange, HeadsGoInGroupsThatFillTheDeviceAndOverlap) {
  const auto group = [](Outer outer, Device device, int threads, int64_t kv_heads, int units = 2) {
    ExchangeShape shape;
    shape.units.units = units;
    shape.kv_heads = kv_heads;
    return shape.group(outer, {device, threads});
  };
  for (const Outer outer : {Outer::Gather, Outer::Ring}) {
    EXPECT_EQ(group(outer, Device::Cpu, 1, 8), 1);
    EXPECT_EQ(group(outer, Device::Cpu, 3, 8), 4);
    EXPECT_EQ(group(outer, Device::Cpu, 16, 8), 8);
  }
  // On a GPU, whatever the threads: two groups at least of what is gathered, equal ones.
  for (const int threads : {1, 16}) {
    EXPECT_EQ(group(Outer::Gather, Device::Cuda, threads, 8), 4);
    EXPECT_EQ(group(Outer::Gather, Device::Cuda, threads, 9), 3);
    EXPECT_EQ(group(Outer::Gather, Device::Cuda, threads, 5), 1);
    EXPECT_EQ(group(Outer::Gather, Device::Cuda, threads, 2), 1);
    EXPECT_EQ(group(Outer::Gather, Device::Cuda, threads, 1), 1);
    EXPECT_EQ(group(Outer::Gather, Device::Cuda, threads, 8, 1), 8) << "nothing comes from other units";
    EXPECT_EQ(group(Outer::Ring, Device::Cuda, threads, 8), 8) << "the next block comes meanwhile";
  }
}

}  // namespace
}  // namespace tessera
