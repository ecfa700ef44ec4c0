// Sums in a fixed order: bitwise the same for any number of threads, since partial sums belong to fixed blocks of the
// input.
#pragma once

#include "tensor/context/context.h"
#include "tensor/tensor.h"

namespace tessera {

// Overwrites sum [1] (F64) with the sum of squares, made in double. Fixed blocks of 4096 elements, added in
// order; on a GPU other blocks, which depend on the size and on whether x is aligned to 16 bytes.
void sum_of_squares(const Context& context, const ConstTensor& x, const Tensor& sum);

// Overwrites sum [n] with the parts of x [parts * n] added up in their order, ((x_0 + x_1) + x_2) + ..., in the
// accumulation dtype and rounded once to sum's dtype: x's, or the accumulation dtype. sum may be one of the parts. x
// has a part at least, unless n is 0.
void sum_parts(const Context& context, const ConstTensor& x, const Tensor& sum);

// True when no element is NaN or infinite.
bool all_finite(const Context& context, const ConstTensor& x);

// Accumulates into sums [columns] (accumulation dtype) the sum over the rows of x [rows, columns]: a bias gradient.
// The order of additions depends on the sizes, and on a GPU also on whether all rows are aligned to 16 bytes (on the
// CPU, rows in ascending order).
void add_column_sums(const Context& context, const ConstTensor& x, const Tensor& sums);

}  // namespace tessera
