// Table look-up and its gradient, for a table of which this rank holds the rows [first_row, first_row + rows).
#pragma once

#include <span>

#include "tensor/context/context.h"
#include "tensor/tensor.h"

namespace tessera {

// Overwrites y [tokens, hidden]: row index[t] - first_row of table [rows, hidden], or zeros where the index is not in
// this rank's rows (also for negative indices).
void embedding(const Context& context, std::span<const int32_t> index, const ConstTensor& table, int64_t first_row,
               const Tensor& y);

// y[t] += table[index[t]]: the same, accumulating; rows outside are left alone.
void embedding_add(const Context& context, std::span<const int32_t> index, const ConstTensor& table, int64_t first_row,
                   const Tensor& y);

// Accumulates into dtable [rows, hidden] (accumulation dtype) from dy [tokens, hidden]. Tokens are added in ascending
// order for each row, whatever the number of threads: bitwise the same each time.
void embedding_backward(const Context& context, std::span<const int32_t> index, const ConstTensor& dy,
                        int64_t first_row, const Tensor& dtable);

}  // namespace tessera
