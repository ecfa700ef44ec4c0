// Small element-by-element operations. Operands of one call have one size.
#pragma once

#include "tensor/context/context.h"
#include "tensor/tensor.h"

namespace tessera {

// y = a + b; y may be a or b. One dtype.
void add(const Context& context, const ConstTensor& a, const ConstTensor& b, const Tensor& y);

// y += x in y's dtype, the accumulation dtype of x's.
void accumulate(const Context& context, const ConstTensor& x, const Tensor& y);

// y = x rounded to y's dtype (a plain copy when the dtypes agree). y may be x only when the dtypes agree.
void cast(const Context& context, const ConstTensor& x, const Tensor& y);

// x = factor x, rounded once to x's dtype.
void scale(const Context& context, double factor, const Tensor& x);

// x[row, :] += bias, in x's dtype; x [rows, n], bias [n].
void add_bias(const Context& context, const ConstTensor& bias, const Tensor& x);

// All bytes zero.
void zero(const Context& context, const Tensor& x);

}  // namespace tessera
