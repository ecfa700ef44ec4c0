// Attention of this rank's queries to the keys of all context-parallel ranks: the kernel, and the exchange around it.
#pragma once

#include "model/attention/attention_plan.h"
#include "model/attention/context_trade.h"
#include "model/layers/layer.h"

namespace tessera {

class ContextAttention {
 public:
  ContextAttention(const ModelSizes& shape, const LayerAttention& kind);

  // Overwrites out [slots, q_heads, head_dim] and lse (q_heads * slots numbers in an order of the exchange's own, for
  // backward).
  void forward(LayerRun run, const AttentionPlans& plan, const AttentionInputs& in, const Tensor& out,
               const Tensor& lse) const;
  // Overwrites the gradients (compute dtype). Keys and values are exchanged again, not kept. A key's gradient is the
  // sum of the ranks' parts, each rounded to the dtype in which it travels (gather and ulysses: compute, ring:
  // accumulation), added in the accumulation dtype in an order that depends on the layout alone, and rounded once.
  void backward(LayerRun run, const AttentionPlans& plan, const AttentionInputs& in, const ConstTensor& out,
                const ConstTensor& lse, const ConstTensor& dout, const AttentionGradients& gradients) const;

  // Bytes, of either call, whatever the packing.
  int64_t workspace(Target target) const;
  // Bytes sent for a microbatch, and for the worst packing.
  ContextTraffic sent(const AttentionPlans& plan) const;
  ContextTraffic most_sent() const;

 private:
  // Between units, on what a rank has after the trade.
  void attend(LayerRun run, const AttentionPlan& plan, const AttentionInputs& in, const Tensor& out,
              const Tensor& lse) const;
  void attend_backward(LayerRun run, const AttentionPlan& plan, const AttentionInputs& in, const ConstTensor& out,
                       const ConstTensor& lse, const ConstTensor& dout, const AttentionGradients& gradients) const;
  int64_t attend_workspace(Target target) const;
  bool trades() const { return unit_.units.ranks > 1; }

  LayerAttention kind_;
  bool ring_;
  ExchangeShape unit_;
  HeadTrade trade_;
};

}  // namespace tessera
