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
//
// Either may be started and waited for later, so that compute runs beside it.
#pragma once

#include <span>

#include "parallel/comm/comm.h"
#include "tensor/context/context.h"

namespace tessera {

// All tokens' rows of local [tokens/tp, n]. Taken from the context's workspace (gather_workspace bytes; the caller
// holds the scope), or local itself in a group of one.
ConstTensor gather_tokens(Context& context, Comm& tp, const ConstTensor& local);
int64_t gather_workspace(int tp, const Shape& local, DType dtype);

// out [tokens/tp, n] becomes this rank's part of the sum over tp of partial [tokens, n]. In a group of one, partial is
// copied, unless out is partial.
void scatter_sum_tokens(Context& context, Comm& tp, const ConstTensor& partial, const Tensor& out);
// scatter_sum_tokens under way: until wait() partial must not be written, and out is not to be used.
[[nodiscard]] Request start_scatter_sum_tokens(Context& context, Comm& tp, const ConstTensor& partial,
                                               const Tensor& out);

// Whether communication is issued beside the compute that does not need it. Either way gives the same bits.
enum class Overlap : uint8_t { Off, On };

// Gathers in a row. With Overlap::On each is under way while what the one before it brought is used, by turns in two
// buffers; with Overlap::Off each runs when it is asked for, in one.
class TokenGathers {
 public:
  // locals [tokens/tp, n], all of one shape, in the order in which they will be asked for; they must stay. Starts the
  // first. Takes its buffers from the context's workspace (the caller holds the scope).
  TokenGathers(Context& context, Comm& tp, std::span<const ConstTensor> locals, Overlap overlap = Overlap::On);

  // All tokens' rows of the next of the locals, which this must be; starts the one after it. They stay until the next
  // call.
  ConstTensor of(const ConstTensor& local);

  static int64_t workspace(int tp, const Shape& local, DType dtype, Overlap overlap = Overlap::On);

 private:
  void start();

  Comm& tp_;
  std::span<const ConstTensor> locals_;
  Overlap overlap_;
  size_t next_ = 0;
  Tensor buffers_[2];
  Request under_way_;
};

}  // namespace tessera
