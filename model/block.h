// A transformer block, pre-norm: x1 = x0 + attention(norm(x0)), x2 = x1 + mlp(norm(x1)).
//
// Memory of the residual stream: the gradient of a residual tensor takes its place. backward_input(dx2) leaves the
// gradient of x1 in x1's memory and that of x0 in x0's, so what backward_weight needs (the gradients that reached the
// two halves' outputs) is dx2 and x1's memory, and nothing more is kept.
#pragma once

#include "model/attention.h"
#include "model/mlp.h"
#include "model/norm.h"

namespace tessera {

class Block {
 public:
  struct Saved {
    Tensor x0;  // [slots/tp, hidden] input; its gradient after backward_input
    Norm::Saved norm1;
    Tensor h1;  // [slots/tp, hidden] norm(x0)
    Attention::Saved attention;
    Tensor x1;  // [slots/tp, hidden] after attention; its gradient after backward_input
    Norm::Saved norm2;
    Tensor h2;  // [slots/tp, hidden] norm(x1)
    Mlp::Saved mlp;
  };

  Block(const ModelShape& shape, int index);

  // Reads saved.x0; overwrites x2 [slots/tp, hidden] (the next block's x0) and the rest of saved.
  void forward(LayerRun run, const MicrobatchPlan& plan, const Saved& saved, const Tensor& x2) const;
  // dx2 [slots/tp, hidden] must stay until backward_weight; overwrites saved.x0 with its gradient. Accumulates the
  // norms' gradients, whose sums run over the same tensors.
  void backward_input(LayerRun run, const MicrobatchPlan& plan, const Saved& saved, const ConstTensor& dx2);
  void backward_weight(LayerRun run, const Saved& saved, const ConstTensor& dx2);

  Saved allocate(Arena& arena) const;
  void prepare(Context& context) const;
  int64_t workspace(const Context& context) const;
  Cost cost() const;
  void add_parameters(Parameters& parameters);

 private:
  Tensor take_residual(Arena& arena) const { return arena.take({shape_.local_slots(), shape_.hidden}, shape_.compute); }

  ModelShape shape_;
  Norm norm1_;
  Attention attention_;
  Norm norm2_;
  Mlp mlp_;
};

}  // namespace tessera
