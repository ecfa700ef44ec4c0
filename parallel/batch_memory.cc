#include "parallel/batch_memory.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <numeric>

#include "tensor/check.h"

namespace tessera {
namespace {

constexpr auto kFieldCount = static_cast<int64_t>(std::size(BatchMemory::kFields));

}  // namespace

void BatchMemory::resize(int64_t slots) {
  TESSERA_CHECK(slots >= 0 && slots <= std::numeric_limits<int32_t>::max(), "slots are numbered in 31 bits");
  slots_ = slots;
  values_.resize(static_cast<size_t>(kFieldCount * slots));
  segments_.reserve(static_cast<size_t>(slots));
  clear();
}

void BatchMemory::clear() {
  segments_.clear();
  pad(0, slots_);
}

std::span<int32_t> BatchMemory::array(std::span<const int32_t> Batch::*view) {
  int64_t field = 0;
  while (field < kFieldCount && kFields[field].view != view) ++field;
  TESSERA_CHECK(field < kFieldCount, "kFields lists what a slot of a Batch has");
  return std::span(values_).subspan(static_cast<size_t>(field * slots_), static_cast<size_t>(slots_));
}

void BatchMemory::pad(int64_t begin, int64_t end, int32_t token) {
  for (const Field& field : kFields) {
    const std::span<int32_t> values = array(field.view);
    std::fill(values.begin() + begin, values.begin() + end, field.view == &Batch::tokens ? token : field.padding);
  }
}

void BatchMemory::copy(const Batch& from, int64_t begin, int64_t length, int64_t slot) {
  TESSERA_CHECK(begin >= 0 && length >= 0 && begin + length <= from.slots(), "slots of the microbatch to copy from");
  TESSERA_CHECK(slot >= 0 && slot + length <= slots_, "slots of the microbatch to copy to");
  for (const Field& field : kFields)
    std::copy_n((from.*field.view).begin() + begin, length, array(field.view).begin() + slot);
}

void BatchMemory::add_segment(const Segment& segment) {
  TESSERA_CHECK(segment.begin >= (segments_.empty() ? 0 : segments_.back().end) && segment.begin < segment.end &&
                    segment.end <= slots_,
                "segments ascend, do not overlap, and lie within the microbatch");
  segments_.push_back(segment);
}

void BatchMemory::add_document(int64_t begin, int64_t end, int32_t document) {
  add_segment({static_cast<int32_t>(begin), static_cast<int32_t>(end), document, 0});
  const std::span<int32_t> position = array(&Batch::position), id = array(&Batch::document);
  std::iota(position.begin() + begin, position.begin() + end, 0);
  std::fill(id.begin() + begin, id.begin() + end, document);
}

int64_t BatchMemory::count_targets(int64_t begin, int64_t end) const {
  const std::span<const int32_t> targets = view().targets;
  return end - begin - std::count(targets.begin() + begin, targets.begin() + end, -1);
}

Batch BatchMemory::view() const {
  Batch batch;
  int64_t first = 0;
  for (const Field& field : kFields) {
    batch.*field.view = std::span(values_).subspan(static_cast<size_t>(first), static_cast<size_t>(slots_));
    first += slots_;
  }
  batch.segments = segments_;
  return batch;
}

int64_t BatchMemory::bytes(int64_t slots) {
  return slots * static_cast<int64_t>(kFieldCount * sizeof(int32_t) + sizeof(Segment));
}

}  // namespace tessera
