// Some columns of a matrix, such as the heads of one rank, copied into another matrix.
#pragma once

#include "tensor/context/context.h"
#include "tensor/tensor.h"

namespace tessera {

// y[:, to + j] = x[:, from + j] for 0 <= j < count, rounded to y's dtype; x [rows, n], y [rows, m]. Other columns of y
// stay as they are. x and y must not overlap.
void copy_columns(const Context& context, const ConstTensor& x, int64_t from, int64_t count, const Tensor& y,
                  int64_t to);

}  // namespace tessera
