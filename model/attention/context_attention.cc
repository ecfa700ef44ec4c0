#include "model/attention/context_attention.h"

#include <algorithm>

#include "model/attention/context_gather.h"
#include "model/attention/context_ring.h"
#include "model/attention/context_tags.h"

namespace tessera {

ContextAttention::ContextAttention(const ModelSizes& shape, const LayerAttention& kind)
    : kind_(kind),
      ring_(kind.exchange.is_ring(shape.cp)),
      unit_(shape.exchange_shape(kind.exchange)),
      trade_(shape.exchange_shape({}), unit_) {}

void ContextAttention::forward(LayerRun run, const AttentionPlans& all, const AttentionInputs& in, const Tensor& out,
                               const Tensor& lse) const {
  const AttentionPlan& plan = all.attention(kind_);
  if (!trades()) return attend(run, plan, in, out, lse);
  const ArenaScope scope(run.context.workspace());
  const HeadTrade::Forward traded = trade_.take_forward(run.context.workspace());
  const ContextGroup::Scope messages(*run.cp);
  trade_.give(run, in, traded.q, traded.k, traded.v);
  run.cp->incoming(kContextData).wait();
  run.cp->outgoing(kContextData).wait();
  attend(run, plan, {traded.q, traded.k, traded.v}, traded.out, lse.reshape({unit_.q_heads, unit_.units.slots}));
  trade_.return_outputs(run, traded.out, traded.columns, out);
}

void ContextAttention::backward(LayerRun run, const AttentionPlans& all, const AttentionInputs& in,
                                const ConstTensor& out, const ConstTensor& lse, const ConstTensor& dout,
                                const AttentionGradients& gradients) const {
  const AttentionPlan& plan = all.attention(kind_);
  if (!trades()) return attend_backward(run, plan, in, out, lse, dout, gradients);
  const ArenaScope scope(run.context.workspace());
  const HeadTrade::Backward traded = trade_.take_backward(run.context.workspace());
  const ContextGroup::Scope messages(*run.cp);
  trade_.give(run, in, traded.q, traded.k, traded.v);
  trade_.give_outputs(run, out, traded.columns, traded.out);
  run.cp->incoming(kContextData).wait();
  run.cp->outgoing(kContextData).wait();  // before the columns take the gradient
  trade_.give_outputs(run, dout, traded.columns, traded.dout);
  run.cp->incoming(kContextData).wait();
  run.cp->outgoing(kContextData).wait();
  attend_backward(run, plan, {traded.q, traded.k, traded.v}, traded.out,
                  lse.reshape({unit_.q_heads, unit_.units.slots}), traded.dout, {traded.dq, traded.dk, traded.dv});
  trade_.return_gradients(run, traded, gradients);
}

int64_t ContextAttention::workspace(Target target) const {
  if (!trades()) return attend_workspace(target);
  Arena forward = Arena::tally(), backward = Arena::tally();
  trade_.take_forward(forward);
  trade_.take_backward(backward);
  return std::max(forward.used(), backward.used()) + attend_workspace(target);
}

ContextTraffic ContextAttention::sent(const AttentionPlans& all) const {
  ContextTraffic sent = trade_.sent();
  if (unit_.units.units == 1) return sent;
  const AttentionPlan& plan = all.attention(kind_);
  return sent += ring_ ? ring_attention_sent(unit_, plan.ring())
                       : gather_attention_sent(unit_, plan.routes().sent_rows(), plan.routes().received_rows());
}

ContextTraffic ContextAttention::most_sent() const {
  ContextTraffic most = trade_.sent();
  const int64_t rows = ContextRoutes::most_sent(unit_.units);  // to each other unit, or as many hops, all slots
  return most += (ring_ ? ring_attention_sent(unit_, rows, rows) : gather_attention_sent(unit_, rows, rows));
}

void ContextAttention::attend(LayerRun run, const AttentionPlan& plan, const AttentionInputs& in, const Tensor& out,
                              const Tensor& lse) const {
  if (unit_.units.units == 1) return attention(run.context, plan.problem(), in.q, in.k, in.v, out, lse);
  (ring_ ? ring_attention : gather_attention)(run, unit_, plan, in, out, lse);
}

void ContextAttention::attend_backward(LayerRun run, const AttentionPlan& plan, const AttentionInputs& in,
                                       const ConstTensor& out, const ConstTensor& lse, const ConstTensor& dout,
                                       const AttentionGradients& gradients) const {
  if (unit_.units.units == 1) {
    return attention_backward(run.context, plan.problem(), in.q, in.k, in.v, out, lse, dout, gradients.q, gradients.k,
                              gradients.v);
  }
  (ring_ ? ring_attention_backward : gather_attention_backward)(run, unit_, plan, in, out, lse, dout, gradients);
}

int64_t ContextAttention::attend_workspace(Target target) const {
  if (unit_.units.units > 1) return (ring_ ? ring_attention_workspace : gather_attention_workspace)(target, unit_);
  return attention_workspace(target, unit_.units.slots, unit_.units.slots, unit_.q_heads, unit_.kv_heads,
                             unit_.head_dim, unit_.compute);
}

}  // namespace tessera
