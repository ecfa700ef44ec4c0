#include "model/attention.h"

#include <algorithm>

#include "tensor/ops/rope.h"

namespace tessera {
Attention::Attention(const ModelShape& shape, const LayerAttention& kind, const std::string& name)
    : shape_(shape),
      layout_(shape.local_heads()),
      qkv_(shape, name + ".qkv", {shape.kv_heads, shape.heads / shape.kv_heads + 2, shape.head_dim, shape.hidden}),
      out_(shape, name + ".out", shape.heads * shape.head_dim, shape.hidden),
      attention_(shape, kind) {}

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
  project(run, plan, x, saved);
  attend(run, plan, saved);
  output(run, saved, y);
}

void Attention::project(LayerRun run, const MicrobatchPlan& plan, const ConstTensor& x, const Saved& saved) const {
  const AttentionGradients heads = heads_in(saved.qkv);
  ArenaScope scope(run.context.workspace());
  const Tensor projected = run.context.workspace().take({shape_.slots, layout_.width()}, shape_.compute);
  qkv_.forward(run, x, projected);
  split_heads(run.context, projected, layout_, plan.rope(), heads.q, heads.k, heads.v);
}

void Attention::attend(LayerRun run, const MicrobatchPlan& plan, const Saved& saved) const {
  const AttentionGradients heads = heads_in(saved.qkv);
  attention_.forward(run, plan, {heads.q, heads.k, heads.v},
                     saved.out.reshape({shape_.slots, layout_.q_heads(), shape_.head_dim}), saved.lse);
}

void Attention::backward_input(LayerRun run, const MicrobatchPlan& plan, const ConstTensor& dy, const Saved& saved,
                               const Tensor& dx) const {
  const AttentionGradients heads = heads_in(saved.qkv);
  const Shape by_head{shape_.slots, layout_.q_heads(), shape_.head_dim};
  ArenaScope scope(run.context.workspace());
  Arena& workspace = run.context.workspace();
  const AttentionGradients gradients = heads_in(workspace.take(saved.qkv.shape(), shape_.compute));
  {
    ArenaScope inner(workspace);
    const Tensor dout = workspace.take(saved.out.shape(), shape_.compute);
    out_.backward_input(run, dy, dout);
    attention_.backward(run, plan, {heads.q, heads.k, heads.v}, saved.out.reshape(by_head), saved.lse,
                        dout.reshape(by_head), gradients);
  }
  // q, k and v are needed no more: their memory takes the gradient of the projection, for backward_weight.
  split_heads_backward(run.context, gradients.q, gradients.k, gradients.v, layout_, plan.rope(), saved.qkv);
  qkv_.backward_input(run, saved.qkv, dx);
}

void Attention::backward_weight(LayerRun run, const ConstTensor& dy, const ConstTensor& x, const Saved& saved) {
  out_.backward_weight(run, dy, saved.out);
  qkv_.backward_weight(run, saved.qkv, x);
}

void Attention::allocate_projected(Arena& arena, Saved& saved) const {
  saved.qkv = arena.take({shape_.slots, layout_.width()}, shape_.compute);
}

void Attention::allocate_attended(Arena& arena, Saved& saved) const {
  saved.out = arena.take({shape_.slots, layout_.q_heads() * shape_.head_dim}, shape_.compute);
  saved.lse = arena.take({layout_.q_heads(), shape_.slots}, shape_.accumulation());
}

void Attention::prepare(Context& context) const {
  qkv_.prepare(context);
  out_.prepare(context);
}

int64_t Attention::workspace(const Context& context) const {
  const int64_t projection = Arena::bytes({shape_.slots, layout_.width()}, shape_.compute);
  const int64_t out = Arena::bytes({shape_.slots, layout_.q_heads() * shape_.head_dim}, shape_.compute);
  return projection + std::max(qkv_.workspace(), out + std::max(attention_.workspace(context), out_.workspace()));
}

Cost Attention::cost() const {
  Cost cost = qkv_.cost() + out_.cost();
  cost.most_exchanged = attention_.most_sent();
  return cost;
}

void Attention::add_parameters(Parameters& parameters) {
  qkv_.add_parameters(parameters);
  out_.add_parameters(parameters);
}

}  // namespace tessera
