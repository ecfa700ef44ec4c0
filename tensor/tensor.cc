#include "tensor/tensor.h"

namespace tessera {

Shape::Shape(std::span<const int64_t> dims) : rank_(static_cast<int>(dims.size())) {
  TESSERA_CHECK(dims.size() <= kMaxRank, "a shape has at most six dims");
  for (int i = 0; i < rank_; ++i) {
    TESSERA_CHECK(dims[i] >= 0, "dims are not negative");
    dims_[i] = dims[i];
  }
}

int64_t Shape::size() const {
  int64_t size = 1;
  for (int i = 0; i < rank_; ++i) size *= dims_[i];
  return size;
}

int64_t Shape::row_size() const {
  int64_t size = 1;
  for (int i = 1; i < rank_; ++i) size *= dims_[i];
  return size;
}

Shape Shape::with_rows(int64_t rows) const {
  TESSERA_CHECK(rank_ > 0, "a scalar has no rows");
  Shape shape = *this;
  shape.dims_[0] = rows;
  return shape;
}

std::string Shape::str() const {
  std::string text = "[";
  for (int i = 0; i < rank_; ++i) text += (i ? ", " : "") + std::to_string(dims_[i]);
  return text + "]";
}

std::ostream& operator<<(std::ostream& out, const Shape& shape) { return out << shape.str(); }

void ConstTensor::check_dtype(DType wanted) const {
  TESSERA_CHECK(wanted == dtype_, std::string("a tensor of ") + name(dtype_) + " read as " + name(wanted));
}

void* ConstTensor::row_pointer(int64_t begin, int64_t end) const {
  TESSERA_CHECK(0 <= begin && begin <= end && end <= shape_[0],
                "rows [" + std::to_string(begin) + ", " + std::to_string(end) + ") of " + shape_.str());
  return static_cast<char*>(data_) + begin * shape_.row_size() * size_of(dtype_);
}

ConstTensor ConstTensor::reshape(const Shape& shape) const {
  TESSERA_CHECK_EQ(shape.size(), size(), "reshape keeps the size");
  return {data_, shape, dtype_, device_};
}

Tensor Tensor::reshape(const Shape& shape) const {
  TESSERA_CHECK_EQ(shape.size(), size(), "reshape keeps the size");
  return {data_, shape, dtype_, device_};
}

}  // namespace tessera
