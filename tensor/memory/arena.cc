#include "tensor/memory/arena.h"

#include <algorithm>

namespace tessera {

Arena::Arena(std::string name, Device device, int64_t capacity)
    : name_(std::move(name)), buffer_(device, capacity, "arena '" + name_ + "'") {}

int64_t Arena::bytes(const Shape& shape, DType dtype) {
  return (shape.size() * size_of(dtype) + kAlignment - 1) / kAlignment * kAlignment;
}

Arena Arena::tally(Device device) {
  Arena arena("tally", device, 0);
  arena.tally_ = true;
  return arena;
}

Tensor Arena::take(const Shape& shape, DType dtype) {
  const int64_t need = bytes(shape, dtype);
  if (tally_) {
    used_ += need;
    high_water_ = std::max(high_water_, used_);
    return Tensor(nullptr, shape, dtype, buffer_.device());
  }
  TESSERA_CHECK(used_ + need <= capacity(), "arena '" + name_ + "' of " + std::to_string(capacity()) + " bytes has " +
                                                std::to_string(capacity() - used_) + " left, and " + shape.str() + " " +
                                                tessera::name(dtype) + " needs " + std::to_string(need));
  Tensor tensor(static_cast<char*>(buffer_.data()) + used_, shape, dtype, buffer_.device());
  used_ += need;
  high_water_ = std::max(high_water_, used_);
  return tensor;
}

}  // namespace tessera
