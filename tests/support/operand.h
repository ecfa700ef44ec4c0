// Operands of operations in tests: memory of any float dtype that is read and written as doubles.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "tensor/context/random.h"
#include "tensor/tensor.h"
#include "tests/support/device.h"

namespace tessera::testing {

class Operand {
 public:
  // Filled with NaN, so that what an operation forgets to overwrite shows.
  Operand(const Shape& shape, DType dtype)
      : shape_(shape), dtype_(dtype), memory_(shape.size() * size_of(dtype), std::byte{0xff}) {}
  Operand(const Operand& other) : shape_(other.shape_), dtype_(other.dtype_), memory_(other.bytes()) {}
  Operand& operator=(const Operand& other) {
    shape_ = other.shape_;
    dtype_ = other.dtype_;
    memory_ = other.bytes();
    return *this;
  }

  // Standard normals times `scale`, rounded to the dtype; another `name` draws others.
  static Operand random(const Shape& shape, DType dtype, const std::string& name, double scale = 1) {
    Operand operand(shape, dtype);
    const RandomStream stream(1, name);
    for (int64_t i = 0; i < shape.size(); ++i) operand.set(i, scale * stream.normal(i));
    return operand;
  }

  static Operand filled(const Shape& shape, DType dtype, double value) {
    Operand operand(shape, dtype);
    for (int64_t i = 0; i < shape.size(); ++i) operand.set(i, value);
    return operand;
  }

  Tensor tensor() { return {memory_.data(), shape_, dtype_, kDevice}; }
  ConstTensor tensor() const { return {memory_.data(), shape_, dtype_, kDevice}; }
  int64_t size() const { return shape_.size(); }
  DType dtype() const { return dtype_; }
  const std::vector<std::byte, SharedAllocator<std::byte>>& bytes() const {
    settle();
    return memory_;
  }

  double operator[](int64_t i) const {
    settle();
    return dispatch_float(dtype_, [&]<class T>(T) { return static_cast<double>(tensor().as<T>()[i]); });
  }
  void set(int64_t i, double value) {
    settle();
    dispatch_float(dtype_, [&]<class T>(T) { tensor().as<T>()[i] = round_to<T>(value); });
  }

 private:
  Shape shape_;
  DType dtype_;
  std::vector<std::byte, SharedAllocator<std::byte>> memory_;
};

constexpr DType kFloatDTypes[] = {DType::F64, DType::F32, DType::BF16};

}  // namespace tessera::testing
