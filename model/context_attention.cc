#include "model/context_attention.h"

#include <algorithm>

#include "model/context_gather.h"

namespace tessera {

ContextAttention::ContextAttention(const ModelShape& shape, const LayerAttention& kind)
    : kind_(kind), exchange_(shape.exchange_shape(kind.exchange)), ring_(kind.exchange.is_ring(shape.cp)) {}

void ContextAttention::forward(LayerRun run, const MicrobatchPlan& all, const AttentionInputs& in, const Tensor& out,
                               const Tensor& lse) const {
  const AttentionPlan& plan = all.attention(kind_);
  if (exchange_.units.units == 1) return attention(run.context, plan.problem(), in.q, in.k, in.v, out, lse);
  gather_attention(run, exchange_, plan, in, out, lse);
}

void ContextAttention::backward(LayerRun run, const MicrobatchPlan& all, const AttentionInputs& in,
                                const ConstTensor& out, const ConstTensor& lse, const ConstTensor& dout,
                                const AttentionGradients& gradients) const {
  const AttentionPlan& plan = all.attention(kind_);
  if (exchange_.units.units == 1) {
    return attention_backward(run.context, plan.problem(), in.q, in.k, in.v, out, lse, dout, gradients.q, gradients.k,
                              gradients.v);
  }
  gather_attention_backward(run, exchange_, plan, in, out, lse, dout, gradients);
}

int64_t ContextAttention::workspace(const Context& context) const {
  if (exchange_.units.units > 1) return gather_attention_workspace(context, exchange_);
  return attention_workspace(context, exchange_.units.slots, exchange_.units.slots, exchange_.q_heads,
                             exchange_.kv_heads, exchange_.head_dim, exchange_.compute);
}

}  // namespace tessera
