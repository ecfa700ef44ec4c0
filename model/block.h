// A transformer block, pre-norm: x1 = x0 + mixer(norm(x0)), x2 = x1 + feed_forward(norm(x1)).
//
// The block is two halves of one form, a norm and a sublayer, and knows nothing of what a sublayer does.
//
// Memory of the residual stream: the gradient of a residual tensor takes its place. backward_input(dx2) leaves the
// gradient of x1 in x1's memory and that of x0 in x0's, so what backward_weight needs (the gradients that reached the
// two halves' outputs) is dx2 and x1's memory, and nothing more is kept. The tensors between blocks belong to the
// stage, as the first and the last of them are also what pipeline ranks send each other.
#pragma once

#include <array>
#include <memory>

#include "model/layers/norm.h"
#include "model/layers/sublayer.h"

namespace tessera {

class Block {
 public:
  // What a half keeps: one part of it is Derived (h, and the sublayer's derived part), the rest is Projected
  // (model/layers/sublayer.h).
  struct HalfSaved {
    Norm::Saved norm;
    Tensor h;  // [slots/tp, hidden] norm(x), x being the half's input
    Sublayer::Saved sublayer;
  };
  struct Saved {
    HalfSaved mixer;
    Tensor x1;  // [slots/tp, hidden] after the mixer; its gradient after backward_input
    HalfSaved feed_forward;
  };
  // Saved falls into two portions, by the block's mode: what a microbatch keeps from forward to backward_weight, and
  // what is made again (empty when all is kept).
  enum class Portion : uint8_t { Kept, MadeAgain };

  // Layer `layer` of shape.layers.
  Block(const ModelShape& shape, int layer, Recompute recompute);
  // Its parameters' addresses are handed out.
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

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
    return {dx2, saved.feed_forward.h, saved.x1, saved.mixer.h};
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
  int64_t forward_workspace(Target target) const;          // of forward and recompute
  int64_t backward_input_workspace(Target target) const;   // of backward_input
  int64_t backward_weight_workspace(Target target) const;  // beside the gathers
  int64_t backward_workspace(Target target) const;         // of backward
  int64_t most_exchanged() const;                          // the most tensors that a call has under way over cp at once
  Cost cost() const;
  void add_parameters(Parameters& parameters);

 private:
  struct Half {
    Half(const ModelShape& shape, const std::string& norm_name, std::unique_ptr<Sublayer> of);

    // Overwrites y with x + sublayer(norm(x)), and saved.
    void forward(LayerRun run, const MicrobatchPlan& plan, const ConstTensor& x, const HalfSaved& saved,
                 const Tensor& y) const;
    void allocate(Arena& arena, SavedPart part, HalfSaved& saved) const;

    Norm norm;
    std::unique_ptr<Sublayer> sublayer;
  };

  Tensor take_residual(Arena& arena) const { return arena.take({shape_.local_slots(), shape_.hidden}, shape_.compute); }
  int64_t residual_bytes() const { return Arena::bytes({shape_.local_slots(), shape_.hidden}, shape_.compute); }

  ModelSizes shape_;
  Recompute recompute_;
  Half mixer_, feed_forward_;
};

// How many parameters a layer of the whole model has.
int64_t parameter_count(const ModelShape& shape, int layer);

}  // namespace tessera
