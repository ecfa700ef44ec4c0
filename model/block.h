// A transformer block, pre-norm: x1 = x0 + attention(norm(x0)), x2 = x1 + mlp(norm(x1)).
//
// Memory of the residual stream: the gradient of a residual tensor takes its place. backward_input(dx2) leaves the
// gradient of x1 in x1's memory and that of x0 in x0's, so what backward_weight needs (the gradients that reached the
// two halves' outputs) is dx2 and x1's memory, and nothing more is kept. The tensors between blocks belong to the
// stage, as the first and the last of them are also what pipeline ranks send each other.
#pragma once

#include <array>

#include "model/attention/attention.h"
#include "model/feed_forward/mlp.h"
#include "model/layers/norm.h"
#include "model/shape/recompute.h"

namespace tessera {

class Block {
 public:
  struct Saved {
    Norm::Saved norm1;
    Tensor h1;  // [slots/tp, hidden] norm(x0)
    Attention::Saved attention;
    Tensor x1;  // [slots/tp, hidden] after attention; its gradient after backward_input
    Norm::Saved norm2;
    Tensor h2;  // [slots/tp, hidden] norm(x1)
    Mlp::Saved mlp;
  };
  // Saved falls into two portions, by the block's mode: what a microbatch keeps from forward to backward_weight, and
  // what is made again (empty when all is kept).
  enum class Portion : uint8_t { Kept, MadeAgain };

  Block(const ModelShape& shape, int index, Recompute recompute);

  // Reads x0; overwrites x2 (the next block's x0) and saved. Both [slots/tp, hidden].
  void forward(LayerRun run, const MicrobatchPlan& plan, const ConstTensor& x0, const Saved& saved,
               const Tensor& x2) const;
  // Overwrites the portion of saved that is made again, from x0 and the portion that is kept.
  void recompute(LayerRun run, const MicrobatchPlan& plan, const ConstTensor& x0, const Saved& saved) const;
  // dx2 [slots/tp, hidden] must stay until backward_weight; overwrites x0 with its gradient. Accumulates the norms'
  // gradients, whose sums run over the same tensors.
  void backward_input(LayerRun run, const MicrobatchPlan& plan, const Tensor& x0, const Saved& saved,
                      const ConstTensor& dx2);
  void backward_weight(LayerRun run, const Saved& saved, const ConstTensor& dx2, TokenGathers& all);
  // What backward_weight gathers, in this order.
  static constexpr int kGathers = 4;
  static std::array<ConstTensor, kGathers> gathers(const Saved& saved, const ConstTensor& dx2) {
    return {dx2, saved.h2, saved.x1, saved.h1};
  }
  // Both in a row, with communication beside compute: the same bits.
  void backward(LayerRun run, const MicrobatchPlan& plan, const Tensor& x0, const Saved& saved, const ConstTensor& dx2);

  // A portion of Saved, the rest empty.
  Saved allocate(Arena& arena, Portion portion) const;
  int64_t saved_bytes(Portion portion) const;
  // Both portions as one.
  static Saved joined(const Saved& kept, const Saved& made_again);

  Recompute recompute_mode() const { return recompute_; }
  void prepare(Context& context) const;
  int64_t workspace(Target target) const;           // of forward, recompute and backward_input
  int64_t backward_weight_workspace() const;        // beside the gathers
  int64_t backward_workspace(Target target) const;  // of backward
  Cost cost() const;
  void add_parameters(Parameters& parameters);

 private:
  Tensor take_residual(Arena& arena) const { return arena.take({shape_.local_slots(), shape_.hidden}, shape_.compute); }

  ModelShape shape_;
  Recompute recompute_;
  Norm norm1_;
  Attention attention_;
  Norm norm2_;
  Mlp mlp_;
};

}  // namespace tessera
