#include "model/layers/norm.h"

#include "tensor/ops/norm.h"

namespace tessera {

Norm::Norm(const ModelShape& shape, const std::string& name)
    : shape_(shape), weight_(whole_parameter(name, {shape.hidden})) {
  weight_.initialisation = Initialisation::One;
  weight_.decay = false;
  weight_.weight_adds_alone = false;
  if (shape.norm == NormKind::Layer) {
    bias_ = whole_parameter(name + ".bias", {shape.hidden});
    bias_.initialisation = Initialisation::Zero;
    bias_.decay = false;
    bias_.weight_adds_alone = false;
  }
}

void Norm::forward(Context& context, const ConstTensor& x, const Saved& saved, const Tensor& y) const {
  if (shape_.norm == NormKind::Rms) {
    rms_norm(context, x, weight_.value, shape_.norm_epsilon, y, saved.rstd);
  } else {
    layer_norm(context, x, weight_.value, bias_.value, shape_.norm_epsilon, y, saved.mean, saved.rstd);
  }
}

void Norm::backward(Context& context, const ConstTensor& dy, const ConstTensor& x, const Saved& saved,
                    const ConstTensor& residual_gradient, const Tensor& dx) {
  if (shape_.norm == NormKind::Rms) {
    rms_norm_backward(context, dy, x, weight_.value, saved.rstd, residual_gradient, dx, weight_.gradient);
  } else {
    layer_norm_backward(context, dy, x, weight_.value, saved.mean, saved.rstd, residual_gradient, dx, weight_.gradient,
                        bias_.gradient);
  }
}

Norm::Saved Norm::allocate(Arena& arena) const {
  const Shape tokens{shape_.local_slots()};
  Saved saved;
  if (shape_.norm == NormKind::Layer) saved.mean = arena.take(tokens, shape_.accumulation());
  saved.rstd = arena.take(tokens, shape_.accumulation());
  return saved;
}

int64_t Norm::workspace(Target target) const {
  return norm_backward_workspace(target, shape_.hidden, shape_.compute, shape_.norm == NormKind::Layer ? 2 : 1);
}

Cost Norm::cost() const {
  const int64_t parts = shape_.norm == NormKind::Layer ? 2 : 1;
  return {.parameters = parts * shape_.hidden};
}

void Norm::add_parameters(Parameters& parameters) {
  parameters.push_back(&weight_);
  if (shape_.norm == NormKind::Layer) parameters.push_back(&bias_);
}

}  // namespace tessera
