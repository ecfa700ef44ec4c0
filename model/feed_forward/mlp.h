// The feed-forward half of a block.
//
//   SwiGLU  y = down(silu(gate(x)) * up(x)); gate and up are one matrix [ffn, 2, hidden]
//   GELU    y = down(gelu(up(x)))
#pragma once

#include "model/layers/linear.h"
#include "parallel/regions.h"

namespace tessera {

class Mlp {
 public:
  struct Saved {
    Tensor up;          // [slots, 2 * ffn/tp] gate and up side by side, or [slots, ffn/tp]
    Tensor activation;  // [slots, ffn/tp]
  };

  Mlp(const ModelShape& shape, const std::string& name, ProductFormat format = ProductFormat::Compute);

  // x [slots/tp, hidden] -> overwrites y [slots/tp, hidden] and saved: expand, then the down projection.
  void forward(LayerRun run, const ConstTensor& x, const Saved& saved, const Tensor& y) const;
  // Overwrites saved.
  void expand(LayerRun run, const ConstTensor& x, const Saved& saved) const;
  // Overwrites saved.activation from saved.up: what expand() made, or where that did it with the product (gemm_gelu.h)
  // what differs from it by a rounding of `up`.
  void activate(LayerRun run, const Saved& saved) const;
  // Overwrites dx [slots/tp, hidden], and saved.up with its gradient, for backward_weight.
  void backward_input(LayerRun run, const ConstTensor& dy, const Saved& saved, const Tensor& dx) const;
  // Gathers dy, then x.
  void backward_weight(LayerRun run, const ConstTensor& dy, const ConstTensor& x, const Saved& saved,
                       TokenGathers& all);
  // Both in a row: dy is gathered once, and x's gather and dx's sum run beside products. Overwrites dx and saved.
  void backward(LayerRun run, const ConstTensor& dy, const ConstTensor& x, const Saved& saved, const Tensor& dx);

  // The two halves of Saved; activate() writes the second from the first.
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
  // Overwrites spare [slots, ffn/tp], and of it and saved.up one with up's gradient, which it returns.
  Tensor backward_to_up(LayerRun run, const ConstTensor& dy, const Saved& saved, const Tensor& spare) const;
  bool gelu() const { return shape_.mlp == MlpKind::Gelu; }

  ModelShape shape_;
  Shape up_shape_;          // local shape of Saved::up
  Shape activation_shape_;  // and of Saved::activation
  ColumnLinear up_;
  RowLinear down_;
};

}  // namespace tessera
