#include "parallel/batch_memory.h"

#include <gtest/gtest.h>

#include <utility>

#include "tensor/check.h"
#include "tests/support/allocations.h"

namespace tessera {
namespace {

// Every field of every slot another value: field f of slot i holds 1000 * f + i.
BatchMemory filled(int64_t slots) {
  BatchMemory memory(slots);
  int32_t base = 0;
  for (const BatchMemory::Field& field : BatchMemory::kFields) {
    const std::span<int32_t> values = memory.array(field.view);
    for (int32_t i = 0; i < std::ssize(values); ++i) values[i] = base + i;
    base += 1000;
  }
  return memory;
}

// A field that Batch had and kFields had not would be copied, cut and padded by nobody.
TEST(BatchMemory, OwnsEverySpanOfABatch) {
  const Batch view = BatchMemory(3).view();
  const size_t owned =
      sizeof(std::span<const int32_t>) * std::size(BatchMemory::kFields) + sizeof(view.segments) + sizeof(view.context);
  EXPECT_EQ(sizeof(Batch), owned) << "a new field of Batch belongs into BatchMemory::kFields";
  for (const BatchMemory::Field& field : BatchMemory::kFields) EXPECT_EQ((view.*field.view).size(), 3u);
}

TEST(BatchMemory, IsPaddingAtFirstAndWhenCleared) {
  BatchMemory memory = filled(5);
  memory.add_segment({0, 2, 0, 0});
  const auto expect_padding = [](const Batch& batch) {
    for (const BatchMemory::Field& field : BatchMemory::kFields)
      for (const int32_t value : batch.*field.view) EXPECT_EQ(value, field.padding);
    EXPECT_TRUE(batch.segments.empty());
    EXPECT_EQ(batch.context, nullptr);
  };
  memory.clear();
  expect_padding(memory.view());
  memory.resize(7);
  expect_padding(memory.view());
  EXPECT_EQ(memory.view().slots(), 7);
  EXPECT_EQ(BatchMemory::bytes(7), 7 * (4 * 4 + 16));
}

TEST(BatchMemory, CopiesARangeOfEveryField) {
  const BatchMemory from = filled(10);
  BatchMemory to(6);
  to.copy(from.view(), 3, 4, 1);
  int32_t base = 0;
  for (const BatchMemory::Field& field : BatchMemory::kFields) {
    const std::span<const int32_t> values = to.view().*field.view;
    EXPECT_EQ(values[0], field.padding);
    for (int32_t i = 0; i < 4; ++i) EXPECT_EQ(values[1 + i], base + 3 + i);
    EXPECT_EQ(values[5], field.padding);
    base += 1000;
  }
  EXPECT_THROW(to.copy(from.view(), 7, 4, 0), InternalError);
  EXPECT_THROW(to.copy(from.view(), 0, 4, 3), InternalError);
}

TEST(BatchMemory, PadsWithTheTokenThatItIsGiven) {
  BatchMemory memory = filled(4);
  memory.pad(1, 3, 42);
  const Batch batch = memory.view();
  for (const int32_t i : {1, 2}) {
    EXPECT_EQ(batch.tokens[i], 42);
    EXPECT_EQ(batch.targets[i], -1);
    EXPECT_EQ(batch.document[i], -1);
  }
  EXPECT_EQ(batch.tokens[3], 3);
  EXPECT_EQ(memory.count_targets(0, 4), 2);
}

TEST(BatchMemory, AddsDocumentsInOrder) {
  BatchMemory memory(8);
  memory.add_document(1, 4, 0);
  memory.add_document(4, 6, 1);
  const Batch batch = memory.view();
  ASSERT_EQ(batch.segments.size(), 2u);
  EXPECT_EQ(batch.segments[1].begin, 4);
  EXPECT_EQ(batch.position[3], 2);
  EXPECT_EQ(batch.position[5], 1);
  EXPECT_EQ(batch.document[5], 1);
  EXPECT_EQ(batch.document[6], -1);
  EXPECT_THROW(memory.add_document(5, 7, 2), InternalError);
  EXPECT_THROW(memory.add_document(6, 9, 2), InternalError);
}

TEST(BatchMemory, KeepsItsViewsWhenMovedAndAllocatesNothingAfterwards) {
  BatchMemory memory(16);
  const Batch before = memory.view();
  const BatchMemory moved = std::move(memory);
  EXPECT_EQ(moved.view().tokens.data(), before.tokens.data());
  BatchMemory other(16);
  const int64_t allocations = testing::allocations();
  for (int round = 0; round < 2; ++round) {
    other.clear();
    for (int i = 0; i < 16; ++i) other.add_document(i, i + 1, i);
    other.copy(before, 0, 16, 0);
  }
  EXPECT_EQ(testing::allocations(), allocations);
}

}  // namespace
}  // namespace tessera
