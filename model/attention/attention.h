// Self-attention of a block (Vaswani et al. 2017), with grouped queries (Ainslie et al. 2023); heads are split over tp.
//
//   qkv = x W_qkv, cut into heads and rotated; out = attention(q, k, v); y = out W_out
//
// Saved: the projected part is qkv, the derived part is out and lse. What depends only on the microbatch is worked out
// once for all layers (model/attention/attention_plan.h).
#pragma once

#include "model/attention/context_attention.h"
#include "model/layers/linear.h"
#include "model/layers/sublayer.h"

namespace tessera {

class Attention final : public Sublayer {
 public:
  Attention(const ModelShape& shape, const LayerAttention& kind, const std::string& name, LinearKind linear = {});

  void forward(LayerRun run, const MicrobatchPlan& plan, const ConstTensor& x, const Saved& saved,
               const Tensor& y) const override;
  void make_again(LayerRun run, const MicrobatchPlan& plan, const ConstTensor& x, const Saved& saved,
                  Recompute mode) const override;
  // Leaves the gradient of the projection in the memory of qkv.
  void backward_input(LayerRun run, const MicrobatchPlan& plan, const ConstTensor& dy, const Saved& saved,
                      const Tensor& dx) override;
  void backward_weight(LayerRun run, const ConstTensor& dy, const ConstTensor& x, const Saved& saved,
                       TokenGathers& all) override;
  void backward(LayerRun run, const MicrobatchPlan& plan, const ConstTensor& dy, const ConstTensor& x,
                const Saved& saved, const Tensor& dx) override;

  void allocate(Arena& arena, SavedPart part, Saved& saved) const override;
  void prepare(Context& context) const override;
  int64_t forward_workspace(Target target) const override;
  int64_t backward_input_workspace(Target target) const override;
  int64_t backward_weight_workspace(Target target) const override;
  int64_t backward_workspace(Target target) const override;
  int64_t most_exchanged() const override;
  Cost cost() const override;
  void add_parameters(Parameters& parameters) override;

 private:
  // What Saved holds, by name.
  enum : size_t {
    kQkv,  // [slots, width]: q, k and v head-major, one after another; after backward_input the projection's gradient
    kOut,  // [slots, q_heads * head_dim]
    kLse,  // [q_heads, slots], or as many numbers in another order (model/attention/context_attention.h)
  };

  static const AttentionPlans& plans(const MicrobatchPlan& plan);
  // Overwrites qkv.
  void project(LayerRun run, const AttentionPlans& plan, const ConstTensor& x, const Saved& saved) const;
  // Overwrites out and lse from qkv.
  void attend(LayerRun run, const AttentionPlans& plan, const Saved& saved) const;
  // The parts of a tensor like qkv, each [heads, slots, head_dim].
  AttentionGradients heads_in(const Tensor& qkv) const;
  // dout: the gradient of out. Overwrites qkv, whose q, k and v are needed no more, with the gradient of the
  // projection, for backward_weight.
  void attend_backward(LayerRun run, const AttentionPlans& plan, const ConstTensor& dout, const Saved& saved) const;
  int64_t attend_backward_workspace(Target target) const;
  int64_t out_bytes() const;  // of a tensor like out, in the workspace

  ModelSizes shape_;
  LayerAttention kind_;
  HeadLayout layout_;  // of this rank
  ColumnLinear qkv_;
  RowLinear out_;
  ContextAttention attention_;
};

}  // namespace tessera
