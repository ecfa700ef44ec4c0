// Cross entropy of a tile of logits whose vocabulary is split over ranks: the local parts of a three-step computation.
//
//   loss_t = log sum_v exp(z_tv) - z_t,target(t)        d loss_t / d z_tv = softmax(z_t)_v - [v = target(t)]
//
// Rank r holds columns [first_column, first_column + columns) of the logits. Step one finds local statistics, the
// caller combines them over the ranks (max, then sums), step two turns logits into gradients. model/layers/head does both, a
// tile of tokens at a time. Tokens with target < 0 count nowhere: loss 0, gradient 0.
#pragma once

#include <span>

#include "tensor/context/context.h"
#include "tensor/tensor.h"

namespace tessera {

// logits [tokens, columns] (accumulation dtype). Overwrites maximum [tokens] with the row maximum (-infinity when
// columns is 0).
void cross_entropy_maximum(const Context& context, const ConstTensor& logits, const Tensor& maximum);

// Overwrites sums [2, tokens]: row 0 the sum of exp(z - maximum), with the maximum over all ranks; row 1 the target's
// logit minus maximum, or 0 when another rank holds it. Both are then to be summed over ranks.
void cross_entropy_sums(const Context& context, const ConstTensor& logits, std::span<const int32_t> target,
                        int64_t first_column, const ConstTensor& maximum, const Tensor& sums);

// Adds to loss [1] (F64) the sum over tokens with a target of log(sums[0]) - sums[1], made in double: in token order on
// the CPU, on a device in an order that depends on the number of tokens alone.
void cross_entropy_loss(const Context& context, std::span<const int32_t> target, const ConstTensor& sums,
                        const Tensor& loss);

// Overwrites dlogits [tokens, columns] (accumulation dtype or compute dtype; may be logits itself when dtypes agree)
// with scale * (softmax - one hot).
void cross_entropy_backward(const Context& context, const ConstTensor& logits, std::span<const int32_t> target,
                            int64_t first_column, const ConstTensor& maximum, const ConstTensor& sums, double scale,
                            const Tensor& dlogits);

}  // namespace tessera
