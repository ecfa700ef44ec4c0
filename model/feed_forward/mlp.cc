#include "model/feed_forward/mlp.h"

#include <algorithm>

#include "tensor/context/copy.h"
#include "tensor/ops/activation.h"

namespace tessera {
namespace {

Shape up_weight(const ModelSizes& shape, FeedForwardKind kind) {
  return kind == FeedForwardKind::SwiGlu ? Shape{shape.ffn, 2, shape.hidden} : Shape{shape.ffn, shape.hidden};
}

}  // namespace

Mlp::Mlp(const ModelShape& shape, FeedForwardKind kind, const std::string& name, LinearKind linear)
    : shape_(shape),
      kind_(kind),
      up_shape_{shape.slots, (kind == FeedForwardKind::SwiGlu ? 2 : 1) * shape.local_ffn()},
      activation_shape_{shape.slots, shape.local_ffn()},
      up_(shape, name + (kind == FeedForwardKind::SwiGlu ? ".gate_up" : ".up"), up_weight(shape, kind), linear),
      down_(shape, name + ".down", shape.ffn, shape.hidden, linear) {}

void Mlp::forward(LayerRun run, const MicrobatchPlan&, const ConstTensor& x, const Saved& saved,
                  const Tensor& y) const {
  expand(run, x, saved);
  down_.forward(run, saved[kActivation], y);
}

void Mlp::make_again(LayerRun run, const MicrobatchPlan&, const ConstTensor& x, const Saved& saved,
                     Recompute mode) const {
  if (makes_again(mode, SavedPart::Projected)) return expand(run, x, saved);
  if (makes_again(mode, SavedPart::Derived)) activate(run, saved);
}

void Mlp::expand(LayerRun run, const ConstTensor& x, const Saved& saved) const {
  if (is_gelu()) return up_.forward_gelu(run, x, saved[kUp], saved[kActivation]);
  up_.forward(run, x, saved[kUp]);
  activate(run, saved);
}

void Mlp::activate(LayerRun run, const Saved& saved) const {
  if (is_gelu()) return gelu(run.context, saved[kUp], saved[kActivation]);
  swiglu(run.context, saved[kUp].reshape({shape_.slots, shape_.local_ffn(), 2}), saved[kActivation]);
}

Tensor Mlp::backward_to_up(LayerRun run, const ConstTensor& dy, const Saved& saved, const Tensor& spare) const {
  if (is_gelu()) {
    down_.backward_input_gelu(run, dy, saved[kUp], spare);
    return spare;
  }
  down_.backward_input(run, dy, spare);
  const Tensor pairs = saved[kUp].reshape({shape_.slots, shape_.local_ffn(), 2});
  swiglu_backward(run.context, spare, pairs, pairs);
  return saved[kUp];
}

void Mlp::backward_input(LayerRun run, const MicrobatchPlan&, const ConstTensor& dy, const Saved& saved,
                         const Tensor& dx) {
  ArenaScope scope(run.context.workspace());
  const Tensor spare = run.context.workspace().take(activation_shape_, shape_.compute);
  {
    ArenaScope inner(run.context.workspace());
    const Tensor dup = backward_to_up(run, gather_tokens(run.context, run.tp, dy), saved, spare);
    if (dup.data() != saved[kUp].data()) copy(run.context, dup, saved[kUp]);  // the workspace ends with this call
  }
  up_.backward_input(run, saved[kUp], dx).wait();
}

void Mlp::backward_weight(LayerRun run, const ConstTensor& dy, const ConstTensor& x, const Saved& saved,
                          TokenGathers& all) {
  down_.backward_weight(run, all.of(dy), saved[kActivation]);
  up_.backward_weight(run, saved[kUp], all.of(x));
}

void Mlp::backward(LayerRun run, const MicrobatchPlan&, const ConstTensor& dy, const ConstTensor& x, const Saved& saved,
                   const Tensor& dx) {
  ArenaScope scope(run.context.workspace());
  const ConstTensor gathered[] = {dy, x};
  TokenGathers all(run.context, run.tp, gathered);
  const ConstTensor dy_all = all.of(dy);
  down_.backward_weight(run, dy_all, saved[kActivation]);
  const Tensor dup = backward_to_up(run, dy_all, saved, saved[kActivation]);  // which nothing needs any more
  Request sum = up_.backward_input(run, dup, dx);
  up_.backward_weight(run, dup, all.of(x));
  sum.wait();
}

void Mlp::allocate(Arena& arena, SavedPart part, Saved& saved) const {
  if (part == SavedPart::Projected)
    saved[kUp] = arena.take(up_shape_, shape_.compute);
  else
    saved[kActivation] = arena.take(activation_shape_, shape_.compute);
}

void Mlp::prepare(Context& context) const {
  using Gelu = LinearProducts::Gelu;
  up_.prepare(context, is_gelu() ? Gelu::OnOutput : Gelu::None);
  down_.prepare(context, is_gelu() ? Gelu::OnInput : Gelu::None);
}

int64_t Mlp::forward_workspace(Target) const { return std::max(up_.forward_workspace(), down_.forward_workspace()); }

int64_t Mlp::backward_input_workspace(Target) const {
  const int64_t dy = gather_workspace(shape_.tp, {shape_.local_slots(), shape_.hidden}, shape_.compute);
  return Arena::bytes(activation_shape_, shape_.compute) +
         std::max(dy + down_.backward_input_workspace(), up_.backward_input_workspace());
}

int64_t Mlp::backward_weight_workspace(Target) const {
  return std::max(up_.backward_weight_workspace(), down_.backward_weight_workspace());
}

int64_t Mlp::backward_workspace(Target) const {
  return TokenGathers::workspace(shape_.tp, {shape_.local_slots(), shape_.hidden}, shape_.compute) +
         std::max({down_.backward_input_workspace(), down_.backward_weight_workspace(), up_.backward_workspace()});
}

Cost Mlp::cost() const { return up_.cost() + down_.cost(); }

void Mlp::add_parameters(Parameters& parameters) {
  up_.add_parameters(parameters);
  down_.add_parameters(parameters);
}

}  // namespace tessera
