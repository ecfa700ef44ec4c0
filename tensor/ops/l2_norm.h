// Heads out of the columns of a token-major matrix, of length one where that is asked for: queries and keys of the delta
// rule (delta_rule/delta_rule.h), whose state stays bounded when keys are no longer than one.
//
//   y = x * r,   r = 1 / sqrt(sum(x^2) + eps),   backward  dx = r (dy - y <dy, y>)
//
// as in Yang, Kautz and Hatamizadeh, "Gated Delta Networks", 2024. The delta rule wants head-major operands, so that one
// head is one contiguous matrix; values are moved without a norm.
#pragma once

#include "tensor/context/context.h"
#include "tensor/tensor.h"

namespace tessera {

// x [tokens, width]: head h is columns [first_column + h * dim, first_column + (h + 1) * dim) -> overwrites
// y [heads/tp, tokens, dim] and rstd [heads/tp, tokens] (accumulation dtype). y aliases nothing.
void l2_norm_heads(const Context& context, const ConstTensor& x, int64_t first_column, double epsilon, const Tensor& y,
                   const Tensor& rstd);

// dy [heads/tp, tokens, dim] -> overwrites these columns of dx [tokens, width], which may be x; the others stay.
void l2_norm_heads_backward(const Context& context, const ConstTensor& dy, const ConstTensor& x, int64_t first_column,
                            const ConstTensor& rstd, const Tensor& dx);

// The same without a norm: y = x, dx = dy.
void split_columns(const Context& context, const ConstTensor& x, int64_t first_column, const Tensor& y);
void split_columns_backward(const Context& context, const ConstTensor& dy, int64_t first_column, const Tensor& dx);

}  // namespace tessera
