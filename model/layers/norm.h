// RMSNorm or LayerNorm on this rank's tokens. Its weights are whole on every tp rank; since each rank sees other
// tokens, its gradients are partial sums over tp.
#pragma once

#include "model/layers/layer.h"

namespace tessera {

class Norm {
 public:
  struct Saved {
    Tensor mean, rstd;  // [slots/tp]; mean for LayerNorm only
  };

  Norm(const ModelShape& shape, const std::string& name);
  // Its parameters' addresses are handed out.
  Norm(const Norm&) = delete;
  Norm& operator=(const Norm&) = delete;

  // x [slots/tp, hidden] -> overwrites y and saved.
  void forward(Context& context, const ConstTensor& x, const Saved& saved, const Tensor& y) const;

  // Both gradients at once, as they read the same two tensors. Overwrites dx with residual_gradient plus the gradient
  // through the norm; dx may be x. Accumulates into the weights' gradients.
  void backward(Context& context, const ConstTensor& dy, const ConstTensor& x, const Saved& saved,
                const ConstTensor& residual_gradient, const Tensor& dx);

  Saved allocate(Arena& arena) const;
  // Memory for y [slots/tp, hidden].
  Tensor take_output(Arena& arena) const { return arena.take({shape_.local_slots(), shape_.hidden}, shape_.compute); }
  int64_t workspace(Target target) const;
  Cost cost() const;
  void add_parameters(Parameters& parameters);

 private:
  ModelSizes shape_;
  Parameter weight_, bias_;
};

}  // namespace tessera
