// Where a step's tokens come from: the seam that data/ implements.
#pragma once

#include <cstdint>

#include "parallel/batch.h"

namespace tessera {

class Source {
 public:
  virtual ~Source() = default;

  // Makes microbatches 0 .. microbatches() - 1 of the step that begins at global sample `first_sample` available to
  // batch(). A pure function of the data history and first_sample. Allocates nothing after construction.
  virtual void load(int64_t first_sample) = 0;

  virtual int microbatches() const = 0;
  // Microbatch m of the loaded step; valid until the next load().
  virtual const Batch& batch(int m) const = 0;

  // Target tokens (target >= 0) of the loaded step on this rank.
  virtual int64_t targets() const = 0;
};

}  // namespace tessera
