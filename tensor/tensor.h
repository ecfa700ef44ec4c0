// Views of contiguous memory: data, shape, dtype, device. A view is a value: it is made again, never mutated, and owns
// nothing (tensor/memory/buffer.h and tensor/memory/arena.h own). ConstTensor may only be read; a Tensor is also a ConstTensor.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <ostream>
#include <span>
#include <string>

#include "tensor/check.h"
#include "tensor/device.h"
#include "tensor/dtype.h"

namespace tessera {

// Up to six dims, outermost first; sizes of zero are legal.
class Shape {
 public:
  static constexpr int kMaxRank = 6;

  Shape() = default;
  Shape(std::initializer_list<int64_t> dims) : Shape(std::span<const int64_t>(dims.begin(), dims.size())) {}
  explicit Shape(std::span<const int64_t> dims);

  int rank() const { return rank_; }
  int64_t operator[](int dim) const { return dims_[dim]; }
  // Number of elements; 1 for rank 0.
  int64_t size() const;
  // Elements in one row, i.e. of everything but dim 0.
  int64_t row_size() const;
  // The same shape with another dim 0.
  Shape with_rows(int64_t rows) const;
  std::span<const int64_t> dims() const { return {dims_.data(), static_cast<size_t>(rank_)}; }
  std::string str() const;  // "[2, 3]"

  bool operator==(const Shape& other) const = default;

 private:
  std::array<int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

std::ostream& operator<<(std::ostream& out, const Shape& shape);

class ConstTensor {
 public:
  ConstTensor() = default;
  ConstTensor(const void* data, const Shape& shape, DType dtype, Device device = Device::Cpu)
      : data_(const_cast<void*>(data)), shape_(shape), dtype_(dtype), device_(device) {}
  template <class T>
  ConstTensor(std::span<const T> values, const Shape& shape) : ConstTensor(values.data(), shape, dtype_of<T>()) {
    TESSERA_CHECK_EQ(static_cast<int64_t>(values.size()), shape.size(), "a view covers its span");
  }

  const void* data() const { return data_; }
  const Shape& shape() const { return shape_; }
  int64_t dim(int i) const { return shape_[i]; }
  int rank() const { return shape_.rank(); }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }
  int64_t size() const { return shape_.size(); }
  int64_t bytes() const { return size() * size_of(dtype_); }
  bool empty() const { return data_ == nullptr || size() == 0; }

  // Elements as T, which must be the dtype's type.
  template <class T>
  const T* as() const {
    check_dtype(dtype_of<T>());
    return static_cast<const T*>(data_);
  }
  template <class T>
  std::span<const T> span() const {
    return {as<T>(), static_cast<size_t>(size())};
  }

  // Rows [begin, end) of dim 0.
  ConstTensor rows(int64_t begin, int64_t end) const {
    return {row_pointer(begin, end), shape_.with_rows(end - begin), dtype_, device_};
  }
  // The same elements under another shape of equal size.
  ConstTensor reshape(const Shape& shape) const;

 protected:
  void* row_pointer(int64_t begin, int64_t end) const;
  void check_dtype(DType wanted) const;

  void* data_ = nullptr;
  Shape shape_;
  DType dtype_ = DType::F32;
  Device device_ = Device::Cpu;
};

class Tensor : public ConstTensor {
 public:
  Tensor() = default;
  Tensor(void* data, const Shape& shape, DType dtype, Device device = Device::Cpu)
      : ConstTensor(data, shape, dtype, device) {}
  template <class T>
  Tensor(std::span<T> values, const Shape& shape) : ConstTensor(std::span<const T>(values), shape) {}

  void* data() const { return data_; }
  template <class T>
  T* as() const {
    check_dtype(dtype_of<T>());
    return static_cast<T*>(data_);
  }
  template <class T>
  std::span<T> span() const {
    return {as<T>(), static_cast<size_t>(size())};
  }
  Tensor rows(int64_t begin, int64_t end) const {
    return {row_pointer(begin, end), shape_.with_rows(end - begin), dtype_, device_};
  }
  Tensor reshape(const Shape& shape) const;
};

}  // namespace tessera
