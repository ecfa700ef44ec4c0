// The feed-forward half of a block.
//
//   SwiGLU  y = down(silu(gate(x)) * up(x)); gate and up are one matrix [ffn, 2, hidden]
//   GELU    y = down(gelu(up(x)))
#pragma once

#include "model/linear.h"
#include "parallel/regions.h"

namespace tessera {

class Mlp {
 public:
  struct Saved {
    Tensor up;  // [slots, 2 * ffn/tp] gate and up side by side, or [slots, ffn/tp]; its gradient after backward_input
    Tensor activation;  // [slots, ffn/tp]
  };

  Mlp(const ModelShape& shape, const std::string& name, ProductFormat format = ProductFormat::Compute);

  // x [slots/tp, hidden] -> overwrites y [slots/tp, hidden] and saved: expand, activate, then the down projection.
  void forward(LayerRun run, const ConstTensor& x, const Saved& saved, const Tensor& y) const;
  // Overwrites saved.up.
  void expand(LayerRun run, const ConstTensor& x, const Saved& saved) const { up_.forward(run, x, saved.up); }
  // Overwrites saved.activation from saved.up.
  void activate(LayerRun run, const Saved& saved) const;
  // Overwrites dx [slots/tp, hidden]; leaves in saved what backward_weight needs.
  void backward_input(LayerRun run, const ConstTensor& dy, const Saved& saved, const Tensor& dx) const;
  // Gathers dy, then x.
  void backward_weight(LayerRun run, const ConstTensor& dy, const ConstTensor& x, const Saved& saved,
                       TokenGathers& all);
  // Both in a row: dy is gathered once, and x's gather and dx's sum run beside products.
  void backward(LayerRun run, const ConstTensor& dy, const ConstTensor& x, const Saved& saved, const Tensor& dx);

  // The two halves of Saved: what expand() and what activate() writes.
  void allocate_expanded(Arena& arena, Saved& saved) const;
  void allocate_activated(Arena& arena, Saved& saved) const;
  void prepare(Context& context) const;
  // Bytes, of each call.
  int64_t forward_workspace() const;
  int64_t backward_input_workspace() const;
  int64_t backward_weight_workspace() const;  // beside the gathers
  int64_t backward_workspace() const;
  Cost cost() const;
  void add_parameters(Parameters& parameters);

 private:
  // Overwrites saved.up with its gradient.
  void activate_backward(LayerRun run, const ConstTensor& dactivation, const Saved& saved) const;

  ModelShape shape_;
  Shape up_shape_;          // local shape of Saved::up
  Shape activation_shape_;  // and of Saved::activation
  ColumnLinear up_;
  RowLinear down_;
};

}  // namespace tessera
