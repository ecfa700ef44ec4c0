// Named memory, sized before step one: the plan is the allocation.
//
// An arena hands out tensors one after another and never grows. Two ways of use:
//   - long-lived (weights, gradients, saved activations): take() at construction, never released;
//   - a stack of scratch (the workspace): an ArenaScope gives back on leaving what was taken inside it.
// The high-water mark is kept, so a test can compare what was stated with what was used.
#pragma once

#include <cstdint>
#include <string>

#include "tensor/memory/buffer.h"
#include "tensor/tensor.h"

namespace tessera {

class Arena {
 public:
  static constexpr int64_t kAlignment = 256;

  Arena() = default;
  Arena(std::string name, Device device, int64_t capacity);

  // An arena without memory or end: its tensors' data is null, and used() says what the same calls take from a real
  // one. So a layer states its bytes by the code that will take them.
  static Arena tally(Device device = Device::Cpu);

  // Uninitialised memory (zero when never used before). Throws InternalError naming the arena when it does not fit:
  // a statement of size was wrong.
  Tensor take(const Shape& shape, DType dtype);

  // What take() uses up for such a tensor: the unit in which sizes are stated.
  static int64_t bytes(const Shape& shape, DType dtype);

  const std::string& name() const { return name_; }
  Device device() const { return buffer_.device(); }
  int64_t capacity() const { return buffer_.bytes(); }
  int64_t used() const { return used_; }
  int64_t high_water() const { return high_water_; }

 private:
  friend class ArenaScope;

  std::string name_;
  Buffer buffer_;
  bool tally_ = false;
  int64_t used_ = 0;
  int64_t high_water_ = 0;
};

// Everything taken from the arena during the life of a scope is given back at its end. Scopes nest.
class ArenaScope {
 public:
  explicit ArenaScope(Arena& arena) : arena_(arena), mark_(arena.used_) {}
  ~ArenaScope() { arena_.used_ = mark_; }
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  Arena& arena_;
  int64_t mark_;
};

}  // namespace tessera
