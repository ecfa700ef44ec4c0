// The owner of a microbatch's arrays, which Batch (parallel/batch.h) views: whoever makes, cuts or copies a microbatch
// does it through this. What a slot has is listed once, in kFields; a new field of Batch is a new line there.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "parallel/batch.h"

namespace tessera {

class BatchMemory {
 public:
  // A value that every slot has: the member of Batch that views it, and what padding holds.
  struct Field {
    std::span<const int32_t> Batch::*view;
    int32_t padding;
  };
  static constexpr Field kFields[] = {
      {&Batch::tokens, 0}, {&Batch::targets, -1}, {&Batch::position, 0}, {&Batch::document, -1}};

  BatchMemory() = default;
  // As after resize(slots).
  explicit BatchMemory(int64_t slots) { resize(slots); }

  // So many slots, all of them padding, without segments, and room for a segment a slot. The only call that allocates.
  void resize(int64_t slots);
  // All slots are padding, and there are no segments.
  void clear();

  int64_t slots() const { return slots_; }
  // The values of a field [slots], to be written: array(&Batch::tokens).
  std::span<int32_t> array(std::span<const int32_t> Batch::*view);

  // Slots [begin, end) become padding; as their token stands `token`, since a padded token is looked up like any other.
  void pad(int64_t begin, int64_t end, int32_t token = 0);
  // Slots [slot, slot + length) become slots [begin, begin + length) of another microbatch, field by field; segments are
  // left to the caller, who knows what of them went along.
  void copy(const Batch& from, int64_t begin, int64_t length, int64_t slot);
  // Appends a segment; throws InternalError when it does not lie behind those before, or beyond the slots.
  void add_segment(const Segment& segment);
  // Appends the segment of a whole document in slots [begin, end), and writes its id and positions from 0 on there.
  void add_document(int64_t begin, int64_t end, int32_t document);

  // How many of slots [begin, end) have a target: one that is not -1.
  int64_t count_targets(int64_t begin, int64_t end) const;

  // All slots, and the segments so far; valid until resize(), and while this lives (a move keeps it valid).
  Batch view() const;

  static int64_t bytes(int64_t slots);  // of memory that so many slots take

 private:
  int64_t slots_ = 0;
  std::vector<int32_t> values_;    // [fields, slots]
  std::vector<Segment> segments_;  // with room for [slots]
};

}  // namespace tessera
