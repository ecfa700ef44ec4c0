// Where a tensor-parallel layer begins and ends: each forward communication beside its backward, in one place.
//
// Between blocks a rank holds the activations of tokens/tp tokens (Korthikanti et al. 2022, sequence parallelism,
// always on). A column-parallel layer needs all tokens: gather. A row-parallel layer has a partial sum for all tokens:
// reduce-scatter. Each is the other's backward:
//
//   gather_tokens        forward  [tokens/tp, n] -> [tokens, n]  all-gather
//                        backward [tokens, n] -> [tokens/tp, n]  reduce-scatter (scatter_sum_tokens)
//   scatter_sum_tokens   forward  [tokens, n] -> [tokens/tp, n]  reduce-scatter
//                        backward [tokens/tp, n] -> [tokens, n]  all-gather (gather_tokens)
#pragma once

#include "parallel/comm.h"
#include "tensor/context.h"

namespace tessera {

// All tokens' rows of local [tokens/tp, n]. Taken from the context's workspace (gather_workspace bytes; the caller
// holds the scope), or local itself in a group of one.
ConstTensor gather_tokens(Context& context, Comm& tp, const ConstTensor& local);
int64_t gather_workspace(int tp, const Shape& local, DType dtype);

// out [tokens/tp, n] becomes this rank's part of the sum over tp of partial [tokens, n]. In a group of one, partial is
// copied, unless out is partial.
void scatter_sum_tokens(Context& context, Comm& tp, const ConstTensor& partial, const Tensor& out);

}  // namespace tessera
