// The feed-forward half of a block.
//
//   SwiGLU  y = down(silu(gate(x)) * up(x)); gate and up are one matrix [ffn, 2, hidden]   (Shazeer 2020)
//   GELU    y = down(gelu(up(x)))                                                          (Hendrycks and Gimpel 2016)
//
// Saved: the projected part is what the first product makes, the derived part is the activation. Where forward makes
// GELU together with its product (tensor/ops/gemm/gemm_gelu.h), the activation that is made again alone differs from
// forward's by a rounding of the projected part.
#pragma once

#include "model/layers/linear.h"
#include "model/layers/sublayer.h"

namespace tessera {

class Mlp final : public Sublayer {
 public:
  Mlp(const ModelShape& shape, FeedForwardKind kind, const std::string& name, LinearKind linear = {});

  // No feed-forward has a plan of the microbatch; `plan` is not read.
  void forward(LayerRun run, const MicrobatchPlan& plan, const ConstTensor& x, const Saved& saved,
               const Tensor& y) const override;
  void make_again(LayerRun run, const MicrobatchPlan& plan, const ConstTensor& x, const Saved& saved,
                  Recompute mode) const override;
  // Leaves the gradient of what the first product made in its memory.
  void backward_input(LayerRun run, const MicrobatchPlan& plan, const ConstTensor& dy, const Saved& saved,
                      const Tensor& dx) override;
  void backward_weight(LayerRun run, const ConstTensor& dy, const ConstTensor& x, const Saved& saved,
                       TokenGathers& all) override;
  // Overwrites the activation, too.
  void backward(LayerRun run, const MicrobatchPlan& plan, const ConstTensor& dy, const ConstTensor& x,
                const Saved& saved, const Tensor& dx) override;

  void allocate(Arena& arena, SavedPart part, Saved& saved) const override;
  void prepare(Context& context) const override;
  int64_t forward_workspace(Target target) const override;
  int64_t backward_input_workspace(Target target) const override;
  int64_t backward_weight_workspace(Target target) const override;
  int64_t backward_workspace(Target target) const override;
  Cost cost() const override;
  void add_parameters(Parameters& parameters) override;

 private:
  // What Saved holds, by name.
  enum : size_t {
    kUp,          // [slots, 2 * ffn/tp] gate and up side by side, or [slots, ffn/tp]
    kActivation,  // [slots, ffn/tp]
  };

  // Overwrites saved.
  void expand(LayerRun run, const ConstTensor& x, const Saved& saved) const;
  // Overwrites the activation from what expand() made.
  void activate(LayerRun run, const Saved& saved) const;
  // Overwrites spare [slots, ffn/tp], and of it and kUp one with the gradient of kUp, which it returns.
  Tensor backward_to_up(LayerRun run, const ConstTensor& dy, const Saved& saved, const Tensor& spare) const;
  bool is_gelu() const { return kind_ == FeedForwardKind::Gelu; }

  ModelSizes shape_;
  FeedForwardKind kind_;
  Shape up_shape_;          // local shape of kUp
  Shape activation_shape_;  // and of kActivation
  ColumnLinear up_;
  RowLinear down_;
};

}  // namespace tessera
