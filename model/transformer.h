// The whole model as one pipeline stage: embedding, blocks, head.
//
// Made in two steps: the constructor only works out shapes and parameters and can state every size; allocate() takes
// the memory. So a plan costs nothing.
#pragma once

#include <memory>
#include <vector>

#include "model/block.h"
#include "model/embedding.h"
#include "model/head.h"
#include "parallel/stage.h"

namespace tessera {

class Transformer : public Stage {
 public:
  // microbatch_slots: microbatches that are alive at once. tp must outlive the model; it may be null until allocate().
  Transformer(const ModelShape& shape, int microbatch_slots);

  // Sizes in bytes, exactly what allocate() and the calls take.
  int64_t weights_bytes() const;      // compute copies of the parameters
  int64_t activations_bytes() const;  // all microbatch slots
  int64_t workspace_bytes(const Context& context) const;
  Cost cost() const;  // of one microbatch

  // Takes the memory and generates the matrix products. Gradients are assigned by the optimizer's side
  // (Parameter::gradient), values are filled by it too.
  void allocate(Context& context, Comm& tp);

  int slots() const override { return microbatch_slots_; }
  double forward(Context& context, const Batch& batch, int slot, double loss_scale) override;
  void backward_input(Context& context, const Batch& batch, int slot) override;
  void backward_weight(Context& context, const Batch& batch, int slot) override;
  double evaluate(Context& context, const Batch& batch, double loss_scale) override;
  Parameters& parameters() override { return parameters_; }

  // Logits [rows, vocab] (accumulation dtype) after tokens [first, first + rows) of the batch; tp = 1.
  void logits(Context& context, const Batch& batch, int64_t first, const Tensor& logits);

  const ModelShape& shape() const { return shape_; }

 private:
  struct Slot {
    MicrobatchPlan plan;
    std::vector<Block::Saved> blocks;
    Tensor last;  // [slots/tp, hidden] the last block's output; its gradient after the head's backward_input
    Head::Saved head;
  };

  LayerRun run(Context& context) const { return {context, *tp_}; }
  // The tensor that block `index` reads: its own x0, or the head's input past the last block.
  const Tensor& residual(const Slot& slot, size_t index) const {
    return index < slot.blocks.size() ? slot.blocks[index].x0 : slot.last;
  }
  void forward_blocks(Context& context, const Batch& batch, Slot& slot);

  ModelShape shape_;
  int microbatch_slots_;
  Comm* tp_ = nullptr;
  Embedding embedding_;
  std::vector<std::unique_ptr<Block>> blocks_;
  Head head_;
  Parameters parameters_;
  Arena weights_;
  Arena activations_;
  std::vector<Slot> slots_;
};

}  // namespace tessera
