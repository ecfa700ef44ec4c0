// Self-attention of a block (Vaswani et al. 2017), with grouped queries (Ainslie et al. 2023); heads are split over tp.
//
//   qkv = x W_qkv, cut into heads and rotated; out = attention(q, k, v); y = out W_out
//
// What depends only on the microbatch is worked out once for all layers: a MicrobatchPlan (model/attention/attention_plan.h).
#pragma once

#include "model/attention/context_attention.h"
#include "model/layers/linear.h"
#include "parallel/regions.h"

namespace tessera {

class Attention {
 public:
  struct Saved {
    Tensor qkv;  // [slots, width]: q, k and v head-major, one after another; after backward_input the projection's
                 // gradient
    Tensor out;  // [slots, q_heads * head_dim]
    Tensor lse;  // [q_heads, slots], or as many numbers in another order (model/attention/context_attention.h)
  };

  Attention(const ModelShape& shape, const LayerAttention& kind, const std::string& name,
            ProductFormat format = ProductFormat::Compute);

  // x [slots/tp, hidden] -> overwrites y [slots/tp, hidden] and saved: project, attend, then the output projection.
  void forward(LayerRun run, const MicrobatchPlan& plan, const ConstTensor& x, const Saved& saved,
               const Tensor& y) const;
  // Overwrites saved.qkv.
  void project(LayerRun run, const MicrobatchPlan& plan, const ConstTensor& x, const Saved& saved) const;
  // Overwrites saved.out and saved.lse from saved.qkv; no matrix product with weights, no communication over tp.
  void attend(LayerRun run, const MicrobatchPlan& plan, const Saved& saved) const;
  // Overwrites y from saved.out.
  void output(LayerRun run, const Saved& saved, const Tensor& y) const { out_.forward(run, saved.out, y); }
  // Overwrites dx [slots/tp, hidden]; leaves in saved what backward_weight needs.
  void backward_input(LayerRun run, const MicrobatchPlan& plan, const ConstTensor& dy, const Saved& saved,
                      const Tensor& dx) const;
  // Gathers dy, then x.
  void backward_weight(LayerRun run, const ConstTensor& dy, const ConstTensor& x, const Saved& saved,
                       TokenGathers& all);
  // Both in a row: dy is gathered once, and x's gather and dx's sum run beside products.
  void backward(LayerRun run, const MicrobatchPlan& plan, const ConstTensor& dy, const ConstTensor& x,
                const Saved& saved, const Tensor& dx);

  // The two halves of Saved: what project() and what attend() writes.
  void allocate_projected(Arena& arena, Saved& saved) const;
  void allocate_attended(Arena& arena, Saved& saved) const;
  void prepare(Context& context) const;
  // Bytes, of each call.
  int64_t forward_workspace(Target target) const;
  int64_t backward_input_workspace(Target target) const;
  int64_t backward_weight_workspace() const;  // beside the gathers
  int64_t backward_workspace(Target target) const;
  Cost cost() const;
  void add_parameters(Parameters& parameters);

 private:
  // The parts of a tensor like saved.qkv, each [heads, slots, head_dim].
  AttentionGradients heads_in(const Tensor& qkv) const;
  // dout: saved.out's gradient. Overwrites saved.qkv, whose q, k and v are needed no more, with the gradient of the
  // projection, for backward_weight.
  void attend_backward(LayerRun run, const MicrobatchPlan& plan, const ConstTensor& dout, const Saved& saved) const;
  int64_t attend_backward_workspace(Target target) const;

  ModelShape shape_;
  HeadLayout layout_;  // of this rank
  ColumnLinear qkv_;
  RowLinear out_;
  ContextAttention attention_;
};

}  // namespace tessera
