#include "optim/whole_gradients.h"

#include <gtest/gtest.h>

#include <memory>

namespace tessera {
namespace {

constexpr AxisSet kSplit{Axis::Dp, Axis::Cp}, kWhole{Axis::Dp, Axis::Cp, Axis::Tp};

Parameter parameter(const std::string& name, const Shape& shape, AxisSet replicas) {
  return {
      .name = name, .global_shape = shape, .rows = {0, shape[0]}, .replicas = replicas, .value = {}, .gradient = {}};
}

struct Fixture {
  Parameter matrix = parameter("matrix", {4, 16}, kSplit);
  Parameter norm = parameter("norm", {5}, kWhole);
  Parameter bias = parameter("bias", {3}, kSplit);
  Parameter empty = parameter("empty", {0, 7}, kSplit);
  Parameter other = parameter("other", {2, 16}, kSplit);
  Parameters parameters{&matrix, &norm, &bias, &empty, &other};
  Arena arena;
};

TEST(WholeGradients, TakeExactlyTheBytesStatedInTheAccumulationDtype) {
  for (DType compute : {DType::F64, DType::F32, DType::BF16}) {
    Fixture f;
    f.arena = Arena("gradients", Device::Cpu, whole_gradient_bytes(f.parameters, compute));
    lay_out_gradients(f.parameters, compute, f.arena);
    EXPECT_EQ(f.arena.used(), f.arena.capacity());
    for (const Parameter* p : f.parameters) {
      EXPECT_EQ(p->gradient.shape(), p->local_shape());
      EXPECT_EQ(p->gradient.dtype(), accumulation_dtype(compute));
    }
  }
}

TEST(WholeGradients, OfOneGroupLieSideBySideWithMatricesAligned) {
  Fixture f;
  f.arena = Arena("gradients", Device::Cpu, whole_gradient_bytes(f.parameters, DType::F32));
  lay_out_gradients(f.parameters, DType::F32, f.arena);
  for (const Parameter* p : {&f.matrix, &f.other})
    EXPECT_EQ(reinterpret_cast<uintptr_t>(p->gradient.data()) % 64, 0u) << p->name;

  const auto buckets = gradient_buckets(f.parameters, 1 << 20);
  ASSERT_EQ(buckets.size(), 2u);
  for (const GradientBucket& bucket : buckets) {
    const bool split = bucket.group == kSplit;
    EXPECT_EQ(bucket.gradients.size(), split ? 64 + 3 + 0 + 32 : 5);
    // What is written through the bucket arrives in the parameters, and nowhere else.
    for (float& x : bucket.gradients.span<float>()) x += split ? 1 : 2;
  }
  for (const Parameter* p : f.parameters) {
    for (float x : p->gradient.span<float>()) EXPECT_EQ(x, p->replicas == kSplit ? 1 : 2) << p->name;
  }
}

TEST(WholeGradients, LongRunsAreCut) {
  Fixture f;
  f.arena = Arena("gradients", Device::Cpu, whole_gradient_bytes(f.parameters, DType::F32));
  lay_out_gradients(f.parameters, DType::F32, f.arena);
  std::vector<int64_t> sizes;
  for (const GradientBucket& bucket : gradient_buckets(f.parameters, 40)) {
    if (bucket.group == kSplit) sizes.push_back(bucket.gradients.size());
  }
  EXPECT_EQ(sizes, (std::vector<int64_t>{40, 40, 19}));
}

TEST(WholeGradients, ThatLieApartAreBucketsOfTheirOwn) {
  Fixture f;
  f.arena = Arena("gradients", Device::Cpu, 5 * Arena::kAlignment);
  for (Parameter* p : f.parameters) p->gradient = f.arena.take(p->local_shape(), DType::F32);
  int64_t elements = 0, buckets = 0;
  for (const GradientBucket& bucket : gradient_buckets(f.parameters, 1 << 20)) {
    ++buckets;
    elements += bucket.gradients.size();
  }
  EXPECT_EQ(elements, 64 + 5 + 3 + 32);
  EXPECT_EQ(buckets, 4);  // the empty one needs none
}

// What is stated without memory is what lies in it: of all blocks at once, and of each alone, whose aligned and other
// gradients lie apart.
TEST(WholeGradients, MessagesAreTheRunsInMemory) {
  Fixture f;
  f.bias.block = f.other.block = 1;
  Parameter second = parameter("second", {7}, kSplit), elsewhere = parameter("elsewhere", {9}, kSplit);
  elsewhere.stage = 1;
  f.parameters.insert(f.parameters.end(), {&second, &elsewhere});
  f.arena = Arena("gradients", Device::Cpu, whole_gradient_bytes(f.parameters, DType::F32));
  lay_out_gradients(f.parameters, DType::F32, f.arena);
  for (const BlockRange blocks : {BlockRange{0, 2}, BlockRange{0, 1}, BlockRange{1, 2}}) {
    Parameters reduced;
    for (Parameter* p : f.parameters) {
      if (p->stage == 0 && blocks.first <= p->block && p->block < blocks.last) reduced.push_back(p);
    }
    const auto messages = gradient_messages(f.parameters, DType::F32, 0, blocks);
    const auto buckets = gradient_buckets(reduced, 1 << 20);
    ASSERT_EQ(messages.size(), buckets.size()) << blocks.first << " to " << blocks.last;
    for (size_t i = 0; i < messages.size(); ++i) {
      EXPECT_EQ(messages[i].group, buckets[i].group);
      EXPECT_EQ(messages[i].elements, buckets[i].gradients.size());
    }
  }
  EXPECT_EQ(gradient_messages(f.parameters, DType::F32, 0, {0, 2}).size(), 2u);
  EXPECT_EQ(gradient_messages(f.parameters, DType::F32, 0, {0, 1}).size(), 3u);  // matrix; second; norm
}

TEST(WholeGradients, MustExist) {
  Fixture f;
  EXPECT_THROW(gradient_buckets(f.parameters, 100), InternalError);
}

}  // namespace
}  // namespace tessera
