#include "model/mlp.h"

#include <algorithm>

#include "tensor/ops/activation.h"

namespace tessera {
namespace {

Shape up_weight(const ModelShape& shape) {
  return shape.mlp == MlpKind::SwiGlu ? Shape{shape.ffn, 2, shape.hidden} : Shape{shape.ffn, shape.hidden};
}

}  // namespace

Mlp::Mlp(const ModelShape& shape, const std::string& name)
    : shape_(shape),
      up_shape_{shape.slots, (shape.mlp == MlpKind::SwiGlu ? 2 : 1) * shape.local_ffn()},
      activation_shape_{shape.slots, shape.local_ffn()},
      up_(shape, name + (shape.mlp == MlpKind::SwiGlu ? ".gate_up" : ".up"), up_weight(shape)),
      down_(shape, name + ".down", shape.ffn, shape.hidden) {}

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

void Mlp::backward_input(LayerRun run, const ConstTensor& dy, const Saved& saved, const Tensor& dx) const {
  ArenaScope scope(run.context.workspace());
  const Tensor dactivation = run.context.workspace().take(activation_shape_, shape_.compute);
  down_.backward_input(run, dy, dactivation);
  if (shape_.mlp == MlpKind::SwiGlu) {
    const Tensor up = saved.up.reshape({shape_.slots, shape_.local_ffn(), 2});
    swiglu_backward(run.context, dactivation, up, up);
  } else {
    gelu_backward(run.context, dactivation, saved.up, saved.up);
  }
  up_.backward_input(run, saved.up, dx);
}

void Mlp::backward_weight(LayerRun run, const ConstTensor& dy, const ConstTensor& x, const Saved& saved) {
  down_.backward_weight(run, dy, saved.activation);
  up_.backward_weight(run, saved.up, x);
}

void Mlp::allocate_expanded(Arena& arena, Saved& saved) const { saved.up = arena.take(up_shape_, shape_.compute); }

void Mlp::allocate_activated(Arena& arena, Saved& saved) const {
  saved.activation = arena.take(activation_shape_, shape_.compute);
}

void Mlp::prepare(Context& context) const {
  up_.prepare(context);
  down_.prepare(context);
}

int64_t Mlp::workspace() const {
  return Arena::bytes(activation_shape_, shape_.compute) + std::max(up_.workspace(), down_.workspace());
}

Cost Mlp::cost() const { return up_.cost() + down_.cost(); }

void Mlp::add_parameters(Parameters& parameters) {
  up_.add_parameters(parameters);
  down_.add_parameters(parameters);
}

}  // namespace tessera
