#include "tensor/tensor.h"

#include <gtest/gtest.h>

#include <vector>

namespace tessera {
namespace {

TEST(Shape, CountsElements) {
  EXPECT_EQ(Shape().size(), 1);
  EXPECT_EQ(Shape({3, 0, 4}).size(), 0);
  const Shape shape({2, 3, 5});
  EXPECT_EQ(shape.rank(), 3);
  EXPECT_EQ(shape.size(), 30);
  EXPECT_EQ(shape.row_size(), 15);
  EXPECT_EQ(shape.with_rows(7), Shape({7, 3, 5}));
  EXPECT_EQ(shape.str(), "[2, 3, 5]");
  EXPECT_NE(shape, Shape({2, 15}));
  EXPECT_NE(Shape({2}), Shape({2, 0}));
  EXPECT_THROW(Shape({1, 1, 1, 1, 1, 1, 1}), InternalError);
  EXPECT_THROW(Shape({-1}), InternalError);
  EXPECT_THROW(Shape().with_rows(1), InternalError);
}

TEST(Tensor, ViewsTheMemoryItIsGiven) {
  std::vector<float> values = {0, 1, 2, 3, 4, 5};
  const Tensor tensor(std::span<float>(values), {3, 2});
  EXPECT_EQ(tensor.dtype(), DType::F32);
  EXPECT_EQ(tensor.bytes(), 24);
  tensor.as<float>()[5] = 7;
  EXPECT_EQ(values[5], 7);
  EXPECT_EQ(tensor.span<float>().size(), 6u);
  EXPECT_THROW(tensor.as<double>(), InternalError);
  EXPECT_THROW(tensor.as<bf16>(), InternalError);
  EXPECT_THROW(Tensor(std::span<float>(values), Shape{7}), InternalError);
}

TEST(Tensor, RowsAreARangeOfDim0) {
  std::vector<bf16> values(24);
  const Tensor tensor(std::span<bf16>(values), {4, 3, 2});
  const Tensor rows = tensor.rows(1, 3);
  EXPECT_EQ(rows.shape(), Shape({2, 3, 2}));
  EXPECT_EQ(rows.as<bf16>(), values.data() + 6);
  EXPECT_EQ(tensor.rows(4, 4).size(), 0);
  EXPECT_TRUE(tensor.rows(2, 2).empty());
  EXPECT_THROW(tensor.rows(3, 5), InternalError);
  EXPECT_THROW(tensor.rows(-1, 1), InternalError);
  EXPECT_THROW(tensor.rows(3, 2), InternalError);
  const ConstTensor read = tensor;
  EXPECT_EQ(read.rows(1, 2).as<bf16>(), values.data() + 6);
}

TEST(Tensor, ReshapeKeepsTheElements) {
  std::vector<double> values(12);
  const Tensor tensor(std::span<double>(values), {4, 3});
  EXPECT_EQ(tensor.reshape({2, 6}).as<double>(), values.data());
  EXPECT_EQ(tensor.reshape({2, 6}).shape(), Shape({2, 6}));
  EXPECT_THROW(tensor.reshape({5, 2}), InternalError);
}

TEST(Tensor, EmptyMeansNoMemoryOrNoElements) {
  EXPECT_TRUE(Tensor().empty());
  EXPECT_TRUE(Tensor(nullptr, {3}, DType::F32).empty());
  float value = 0;
  EXPECT_FALSE(Tensor(&value, {1}, DType::F32).empty());
}

}  // namespace
}  // namespace tessera
