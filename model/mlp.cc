#include "model/mlp.h"

#include <algorithm>

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
  activate(run, saved);
  down_.forward(run, saved.activation, y);
}

void Mlp::activate(LayerRun run, const Saved& saved) const {
  if (shape_.mlp == MlpKind::SwiGlu) {
    swiglu(run.context, saved.up.reshape({shape_.slots, shape_.local_ffn(), 2}), saved.activation);
  } else {
    gelu(run.context, saved.up, saved.activation);
  }
}

void Mlp::activate_backward(LayerRun run, const ConstTensor& dactivation, const Saved& saved) const {
  if (shape_.mlp == MlpKind::SwiGlu) {
    const Tensor up = saved.up.reshape({shape_.slots, shape_.local_ffn(), 2});
    swiglu_backward(run.context, dactivation, up, up);
  } else {
    gelu_backward(run.context, dactivation, saved.up, saved.up);
  }
}

void Mlp::backward_input(LayerRun run, const ConstTensor& dy, const Saved& saved, const Tensor& dx) const {
  ArenaScope scope(run.context.workspace());
  const Tensor dactivation = run.context.workspace().take(activation_shape_, shape_.compute);
  {
    ArenaScope inner(run.context.workspace());
    down_.backward_input(run, gather_tokens(run.context, run.tp, dy), dactivation);
  }
  activate_backward(run, dactivation, saved);
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
  const Tensor dactivation = run.context.workspace().take(activation_shape_, shape_.compute);
  const ConstTensor dy_all = all.of(dy);
  down_.backward_input(run, dy_all, dactivation);
  down_.backward_weight(run, dy_all, saved.activation);
  activate_backward(run, dactivation, saved);
  Request sum = up_.backward_input(run, saved.up, dx);
  up_.backward_weight(run, saved.up, all.of(x));
  sum.wait();
}

void Mlp::allocate_expanded(Arena& arena, Saved& saved) const { saved.up = arena.take(up_shape_, shape_.compute); }

void Mlp::allocate_activated(Arena& arena, Saved& saved) const {
  saved.activation = arena.take(activation_shape_, shape_.compute);
}

void Mlp::prepare(Context& context) const {
  up_.prepare(context);
  down_.prepare(context);
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
         Arena::bytes(activation_shape_, shape_.compute) +
         std::max({down_.backward_input_workspace(), down_.backward_weight_workspace(), up_.backward_workspace()});
}

Cost Mlp::cost() const { return up_.cost() + down_.cost(); }

void Mlp::add_parameters(Parameters& parameters) {
  up_.add_parameters(parameters);
  down_.add_parameters(parameters);
}

}  // namespace tessera
