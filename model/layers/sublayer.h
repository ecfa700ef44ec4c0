// What a block is made of two of: a mixer, in which tokens see each other, and a feed-forward, in which each is on its
// own. The block norms the input and adds the output to the residual stream; everything between is the sublayer's.
//
//   y = sublayer(x), x and y [slots/tp, hidden]
//
// What a sublayer must keep from forward to backward_weight falls into two parts by how it is made: Projected, with
// products of weights or with communication over tp, and Derived, from the projected part alone. Recompute::Selective
// makes only the derived part again (Korthikanti et al. 2022), Recompute::Full both.
#pragma once

#include <array>

#include "model/layers/layer.h"
#include "model/layers/microbatch_plan.h"
#include "model/shape/recompute.h"
#include "parallel/regions.h"
#include "tensor/context/target.h"

namespace tessera {

class Sublayer {
 public:
  // Views of what one microbatch keeps. Which is which is the sublayer's own matter; a view that is not used, or whose
  // part is not there, is empty.
  static constexpr int kMostSaved = 4;
  using Saved = std::array<Tensor, kMostSaved>;

  virtual ~Sublayer() = default;
  Sublayer(const Sublayer&) = delete;
  Sublayer& operator=(const Sublayer&) = delete;

  // x [slots/tp, hidden] -> overwrites y [slots/tp, hidden] and saved.
  virtual void forward(LayerRun run, const MicrobatchPlan& plan, const ConstTensor& x, const Saved& saved,
                       const Tensor& y) const = 0;
  // Overwrites what `mode` makes again of saved, by the operations of forward, without its output. Selective reads the
  // projected part, Full reads x.
  virtual void make_again(LayerRun run, const MicrobatchPlan& plan, const ConstTensor& x, const Saved& saved,
                          Recompute mode) const = 0;
  // dy: the gradient of y. Overwrites dx [slots/tp, hidden] with the gradient of x, and leaves in saved what
  // backward_weight needs.
  virtual void backward_input(LayerRun run, const MicrobatchPlan& plan, const ConstTensor& dy, const Saved& saved,
                              const Tensor& dx) = 0;
  // Accumulates into the gradients of the parameters. Asks `all` for dy, then for x.
  virtual void backward_weight(LayerRun run, const ConstTensor& dy, const ConstTensor& x, const Saved& saved,
                               TokenGathers& all) = 0;
  // Both in a row, with the same bits: dy is gathered once, and communication runs beside products.
  virtual void backward(LayerRun run, const MicrobatchPlan& plan, const ConstTensor& dy, const ConstTensor& x,
                        const Saved& saved, const Tensor& dx) = 0;

  // Takes the views of one part of saved.
  virtual void allocate(Arena& arena, SavedPart part, Saved& saved) const = 0;
  // Generates the matrix products.
  virtual void prepare(Context& context) const = 0;
  // Bytes of the workspace that each call takes; forward's holds for make_again, and backward_weight's is beside the
  // gathers.
  virtual int64_t forward_workspace(Target target) const = 0;
  virtual int64_t backward_input_workspace(Target target) const = 0;
  virtual int64_t backward_weight_workspace(Target target) const = 0;
  virtual int64_t backward_workspace(Target target) const = 0;
  // The most tensors that a call has under way over cp at once: what a ContextGroup has room for.
  virtual int64_t most_exchanged() const { return 0; }
  virtual Cost cost() const = 0;
  virtual void add_parameters(Parameters& parameters) = 0;

 protected:
  Sublayer() = default;
};

}  // namespace tessera
