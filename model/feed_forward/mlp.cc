#include "model/feed_forward/mlp.h"

#include <algorithm>

#include "tensor/context/copy.h"
#include "tensor/ops/activation.h"

namespace tessera {
namespace {

Shape up_weight(const ModelShape& shape) {
  return shape.mlp == MlpKind::SwiGlu ? Shape{shape.ffn, 2, shape.hidden} : Shape{shape.ffn, shape.hidden};
}

}  // namespace

Mlp::Mlp(const ModelShape& shape, const std::string& name, ProductFormat format)
    : shape_(shape),
      up_shape_{shape.slots, (shape.mlp == MlpKind::SwiGlu ? 2 : 1) * shape.local_ffn()},
      activation_shape_{shape.slots, shape.local_ffn()},
      up_(shape, name + (shape.mlp == MlpKind::SwiGlu ? ".gate_up" : ".up"), up_weight(shape), format),
      down_(shape, name + ".down", shape.ffn, shape.hidden, format) {}

void Mlp::forward(LayerRun run, const ConstTensor& x, const Saved& saved, const Tensor& y) const {
  expand(run, x, saved);
  down_.forward(run, saved.activation, y);
}

void Mlp::expand(LayerRun run, const ConstTensor& x, const Saved& saved) const {
  if (gelu()) return up_.forward_gelu(run, x, saved.up, saved.activation);
  up_.forward(run, x, saved.up);
  activate(run, saved);
}

void Mlp::activate(LayerRun run, const Saved& saved) const {
  if (gelu()) return tessera::gelu(run.context, saved.up, saved.activation);
  swiglu(run.context, saved.up.reshape({shape_.slots, shape_.local_ffn(), 2}), saved.activation);
}

Tensor Mlp::backward_to_up(LayerRun run, const ConstTensor& dy, const Saved& saved, const Tensor& spare) const {
  if (gelu()) {
    down_.backward_input_gelu(run, dy, saved.up, spare);
    return spare;
  }
  down_.backward_input(run, dy, spare);
  const Tensor pairs = saved.up.reshape({shape_.slots, shape_.local_ffn(), 2});
  swiglu_backward(run.context, spare, pairs, pairs);
  return saved.up;
}

void Mlp::backward_input(LayerRun run, const ConstTensor& dy, const Saved& saved, const Tensor& dx) const {
  ArenaScope scope(run.context.workspace());
  const Tensor spare = run.context.workspace().take(activation_shape_, shape_.compute);
  {
    ArenaScope inner(run.context.workspace());
    const Tensor dup = backward_to_up(run, gather_tokens(run.context, run.tp, dy), saved, spare);
    if (dup.data() != saved.up.data()) copy(run.context, dup, saved.up);  // the workspace ends with this call
  }
  up_.backward_input(run, saved.up, dx).wait();
}

void Mlp::backward_weight(LayerRun run, const ConstTensor& dy, const ConstTensor& x, const Saved& saved,
                          TokenGathers& all) {
  down_.backward_weight(run, all.of(dy), saved.activation);
  up_.backward_weight(run, saved.up, all.of(x));
}

void Mlp::backward(LayerRun run, const ConstTensor& dy, const ConstTensor& x, const Saved& saved, const Tensor& dx) {
  ArenaScope scope(run.context.workspace());
  const ConstTensor gathered[] = {dy, x};
  TokenGathers all(run.context, run.tp, gathered);
  const ConstTensor dy_all = all.of(dy);
  down_.backward_weight(run, dy_all, saved.activation);
  const Tensor dup = backward_to_up(run, dy_all, saved, saved.activation);  // which nothing needs any more
  Request sum = up_.backward_input(run, dup, dx);
  up_.backward_weight(run, dup, all.of(x));
  sum.wait();
}

void Mlp::allocate_expanded(Arena& arena, Saved& saved) const { saved.up = arena.take(up_shape_, shape_.compute); }

void Mlp::allocate_activated(Arena& arena, Saved& saved) const {
  saved.activation = arena.take(activation_shape_, shape_.compute);
}

void Mlp::prepare(Context& context) const {
  using Gelu = LinearProducts::Gelu;
  up_.prepare(context, gelu() ? Gelu::OnOutput : Gelu::None);
  down_.prepare(context, gelu() ? Gelu::OnInput : Gelu::None);
}

int64_t Mlp::forward_workspace() const { return std::max(up_.forward_workspace(), down_.forward_workspace()); }

int64_t Mlp::backward_input_workspace() const {
  const int64_t dy = gather_workspace(shape_.tp, {shape_.local_slots(), shape_.hidden}, shape_.compute);
  return Arena::bytes(activation_shape_, shape_.compute) +
         std::max(dy + down_.backward_input_workspace(), up_.backward_input_workspace());
}

int64_t Mlp::backward_weight_workspace() const {
  return std::max(up_.backward_weight_workspace(), down_.backward_weight_workspace());
}

int64_t Mlp::backward_workspace() const {
  return TokenGathers::workspace(shape_.tp, {shape_.local_slots(), shape_.hidden}, shape_.compute) +
         std::max({down_.backward_input_workspace(), down_.backward_weight_workspace(), up_.backward_workspace()});
}

Cost Mlp::cost() const { return up_.cost() + down_.cost(); }

void Mlp::add_parameters(Parameters& parameters) {
  up_.add_parameters(parameters);
  down_.add_parameters(parameters);
}

}  // namespace tessera
