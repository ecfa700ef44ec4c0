#include "model/attention/attention.h"

#include <algorithm>

#include "tensor/ops/rope.h"

namespace tessera {

Attention::Attention(const ModelShape& shape, const LayerAttention& kind, const std::string& name, LinearKind linear)
    : shape_(shape),
      kind_(kind),
      layout_(shape.local_heads()),
      qkv_(shape, name + ".qkv", {shape.kv_heads, shape.heads / shape.kv_heads + 2, shape.head_dim, shape.hidden},
           linear),
      out_(shape, name + ".out", shape.heads * shape.head_dim, shape.hidden, linear),
      attention_(shape, kind) {}

const AttentionPlans& Attention::plans(const MicrobatchPlan& plan) {
  const auto* plans = dynamic_cast<const AttentionPlans*>(&plan.of(MixerKind::Attention));
  TESSERA_CHECK(plans != nullptr, "attention was given another mixer's plan");
  return *plans;
}

AttentionGradients Attention::heads_in(const Tensor& qkv) const {
  const Tensor flat = qkv.reshape({qkv.size()});
  const int64_t head = shape_.slots * shape_.head_dim;
  const int64_t q = layout_.q_heads() * head, kv = layout_.kv_heads * head;
  return {flat.rows(0, q).reshape({layout_.q_heads(), shape_.slots, shape_.head_dim}),
          flat.rows(q, q + kv).reshape({layout_.kv_heads, shape_.slots, shape_.head_dim}),
          flat.rows(q + kv, q + 2 * kv).reshape({layout_.kv_heads, shape_.slots, shape_.head_dim})};
}

void Attention::forward(LayerRun run, const MicrobatchPlan& plan, const ConstTensor& x, const Saved& saved,
                        const Tensor& y) const {
  project(run, plans(plan), x, saved);
  attend(run, plans(plan), saved);
  out_.forward(run, saved[kOut], y);
}

void Attention::make_again(LayerRun run, const MicrobatchPlan& plan, const ConstTensor& x, const Saved& saved,
                           Recompute mode) const {
  if (makes_again(mode, SavedPart::Projected)) project(run, plans(plan), x, saved);
  if (makes_again(mode, SavedPart::Derived)) attend(run, plans(plan), saved);
}

void Attention::project(LayerRun run, const AttentionPlans& plan, const ConstTensor& x, const Saved& saved) const {
  const AttentionGradients heads = heads_in(saved[kQkv]);
  ArenaScope scope(run.context.workspace());
  const Tensor projected = run.context.workspace().take({shape_.slots, layout_.width()}, shape_.compute);
  qkv_.forward(run, x, projected);
  split_heads(run.context, projected, layout_, plan.rope(kind_), heads.q, heads.k, heads.v);
}

void Attention::attend(LayerRun run, const AttentionPlans& plan, const Saved& saved) const {
  const AttentionGradients heads = heads_in(saved[kQkv]);
  attention_.forward(run, plan, {heads.q, heads.k, heads.v},
                     saved[kOut].reshape({shape_.slots, layout_.q_heads(), shape_.head_dim}), saved[kLse]);
}

void Attention::attend_backward(LayerRun run, const AttentionPlans& plan, const ConstTensor& dout,
                                const Saved& saved) const {
  ArenaScope scope(run.context.workspace());
  const AttentionGradients heads = heads_in(saved[kQkv]);
  const AttentionGradients gradients = heads_in(run.context.workspace().take(saved[kQkv].shape(), shape_.compute));
  const Shape by_head{shape_.slots, layout_.q_heads(), shape_.head_dim};
  attention_.backward(run, plan, {heads.q, heads.k, heads.v}, saved[kOut].reshape(by_head), saved[kLse],
                      dout.reshape(by_head), gradients);
  split_heads_backward(run.context, gradients.q, gradients.k, gradients.v, layout_, plan.rope(kind_), saved[kQkv]);
}

void Attention::backward_input(LayerRun run, const MicrobatchPlan& plan, const ConstTensor& dy, const Saved& saved,
                               const Tensor& dx) {
  ArenaScope scope(run.context.workspace());
  const Tensor dout = run.context.workspace().take(saved[kOut].shape(), shape_.compute);
  {
    ArenaScope inner(run.context.workspace());
    out_.backward_input(run, gather_tokens(run.context, run.tp, dy), dout);
  }
  attend_backward(run, plans(plan), dout, saved);
  qkv_.backward_input(run, saved[kQkv], dx).wait();
}

void Attention::backward_weight(LayerRun run, const ConstTensor& dy, const ConstTensor& x, const Saved& saved,
                                TokenGathers& all) {
  out_.backward_weight(run, all.of(dy), saved[kOut]);
  qkv_.backward_weight(run, saved[kQkv], all.of(x));
}

void Attention::backward(LayerRun run, const MicrobatchPlan& plan, const ConstTensor& dy, const ConstTensor& x,
                         const Saved& saved, const Tensor& dx) {
  ArenaScope scope(run.context.workspace());
  const ConstTensor gathered[] = {dy, x};
  TokenGathers all(run.context, run.tp, gathered);
  const Tensor dout = run.context.workspace().take(saved[kOut].shape(), shape_.compute);
  const ConstTensor dy_all = all.of(dy);
  out_.backward_input(run, dy_all, dout);
  out_.backward_weight(run, dy_all, saved[kOut]);
  attend_backward(run, plans(plan), dout, saved);
  Request sum = qkv_.backward_input(run, saved[kQkv], dx);
  qkv_.backward_weight(run, saved[kQkv], all.of(x));
  sum.wait();
}

void Attention::allocate(Arena& arena, SavedPart part, Saved& saved) const {
  if (part == SavedPart::Projected) {
    saved[kQkv] = arena.take({shape_.slots, layout_.width()}, shape_.compute);
    return;
  }
  saved[kOut] = arena.take({shape_.slots, layout_.q_heads() * shape_.head_dim}, shape_.compute);
  saved[kLse] = arena.take({layout_.q_heads(), shape_.slots}, shape_.accumulation());
}

void Attention::prepare(Context& context) const {
  qkv_.prepare(context);
  out_.prepare(context);
}

int64_t Attention::out_bytes() const {
  return Arena::bytes({shape_.slots, layout_.q_heads() * shape_.head_dim}, shape_.compute);
}

int64_t Attention::attend_backward_workspace(Target target) const {
  return Arena::bytes({shape_.slots, layout_.width()}, shape_.compute) + attention_.workspace(target);
}

int64_t Attention::forward_workspace(Target target) const {
  return std::max({Arena::bytes({shape_.slots, layout_.width()}, shape_.compute) + qkv_.forward_workspace(),
                   attention_.workspace(target), out_.forward_workspace()});
}

int64_t Attention::backward_input_workspace(Target target) const {
  const int64_t dy = gather_workspace(shape_.tp, {shape_.local_slots(), shape_.hidden}, shape_.compute);
  return out_bytes() + std::max({dy + out_.backward_input_workspace(), attend_backward_workspace(target),
                                 qkv_.backward_input_workspace()});
}

int64_t Attention::backward_weight_workspace(Target) const {
  return std::max(qkv_.backward_weight_workspace(), out_.backward_weight_workspace());
}

int64_t Attention::backward_workspace(Target target) const {
  return TokenGathers::workspace(shape_.tp, {shape_.local_slots(), shape_.hidden}, shape_.compute) + out_bytes() +
         std::max({out_.backward_input_workspace(), out_.backward_weight_workspace(), attend_backward_workspace(target),
                   qkv_.backward_workspace()});
}

// In either direction, of each head its queries or outputs, and the two halves of keys and values.
int64_t Attention::most_exchanged() const { return 2 * (layout_.q_heads() + 2 * layout_.kv_heads); }

Cost Attention::cost() const {
  Cost cost = qkv_.cost() + out_.cost();
  cost.pair_flops = layout_.q_heads() * attention_forward_flops(1, shape_.head_dim);
  cost.most_exchanged = attention_.most_sent();
  return cost;
}

void Attention::add_parameters(Parameters& parameters) {
  qkv_.add_parameters(parameters);
  out_.add_parameters(parameters);
}

}  // namespace tessera
