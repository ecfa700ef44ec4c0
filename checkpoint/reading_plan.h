// Who reads which block of a checkpoint, and where its bytes go: each block that anyone wants is read once, by one of
// those that want a part of it, and sent to the others. Computed from metadata; the same on every rank.
#pragma once

#include <cstdint>
#include <vector>

#include "checkpoint/reader.h"
#include "checkpoint/sharing.h"

namespace tessera {

struct Reading {
  // Bytes of the block that a rank wants.
  struct Delivery {
    int rank = 0;
    size_t slice = 0;      // number among that rank's slices
    int64_t in_block = 0;  // first byte, counted from the block's first
    int64_t in_slice = 0;  // first byte, counted from the slice's first
    int64_t bytes = 0;
  };
  const StoredTensor* tensor = nullptr;
  const StoredTensor::Part* part = nullptr;
  int64_t block = 0;  // of the part's box
  int64_t bytes = 0;  // of the block
  int reader = 0;
  std::vector<Delivery> deliveries;  // by rank; never empty
};

class ReadingPlan {
 public:
  // Both must outlive the plan.
  ReadingPlan(const CheckpointReader& reader, const HeldByRank& held);

  // The next readings, at most `count` of them, so that a plan of any size takes little memory; none: all are done.
  // The reader of a block is, of those that want it, the one that has the fewest bytes to read so far.
  std::vector<Reading> next(size_t count);

 private:
  struct Want {
    int rank;
    size_t slice;
    Interval bytes;  // of the tensor
  };

  std::vector<Want> wants_of(const StoredTensor& tensor) const;

  const CheckpointReader& reader_;
  const HeldByRank& held_;
  std::vector<std::vector<std::pair<int, size_t>>> holders_;  // by tensor: rank and slice
  std::vector<int64_t> assigned_;                             // bytes to read, by rank
  size_t tensor_ = 0, part_ = 0;
  int64_t block_ = 0;
  std::vector<Want> wants_;  // of the tensor at hand
};

}  // namespace tessera
