// A pipeline stage of the model: some of its blocks, with the embedding on the first stage and the head on the last. A
// model on one rank is the stage that has everything.
//
// Made in two steps: the constructor only works out shapes and parameters and can state every size; allocate() takes
// the memory. So a plan costs nothing.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "model/block.h"
#include "model/layers/embedding.h"
#include "model/layers/head.h"
#include "parallel/partition.h"
#include "parallel/stage.h"
#include "tensor/context/replay.h"

namespace tessera {

class Transformer : public Stage {
 public:
  struct Options {
    StagePart part;                         // of shape.blocks() blocks
    std::vector<Recompute> recompute = {};  // by block of the whole model; empty: everything is kept
    int slots = 1;                          // microbatches that are alive at once
    int areas = 0;                          // blocks that are between recompute and backward_weight at once
    Device device = Device::Cpu;            // of the context that it will run in
    // In a tied model with several stages: whether the first and the last one lie on one rank, and, for the last one
    // there, which stage has the embedding.
    bool ends_together = false;
    Transformer* embedding_stage = nullptr;
    bool weights_elsewhere = false;  // values are given their memory from outside (Reducer::gather)
    Overlap overlap = Overlap::On;   // of tensor parallelism's communication with backward's compute
    bool graphs = false;             // on a GPU: what blocks queue is recorded and queued again as a whole
  };

  Transformer(const ModelShape& shape, Options options);
  // Its parameters' addresses are handed out.
  Transformer(const Transformer&) = delete;
  Transformer& operator=(const Transformer&) = delete;

  // Sizes in bytes, exactly what allocate() and the calls take.
  int64_t weights_bytes() const;        // compute copies of the parameters, in Parameter::padded_shape()
  int64_t slot_bytes() const override;  // activations of one microbatch
  int64_t list_bytes() const;           // lists of one microbatch on the host; 0 when they are in the slot, on a CPU
  int64_t area_bytes() const;           // what recompute makes, of one block
  int64_t activations_bytes() const;    // all slots and areas, and the loss
  int64_t workspace_bytes(Target target) const;
  // What one microbatch costs, by part and in all.
  PartCosts costs() const;
  Cost cost() const { return costs().sum(); }

  // Takes the memory and generates the matrix products. Gradients are assigned by the optimizer's side
  // (Parameter::gradient), values are filled by it too. The groups must outlive the stage; cp: null for a group of one.
  void allocate(Context& context, Comm& tp, Comm* cp = nullptr);

  // Whether what blocks queue there is recorded (Options::graphs): on a GPU, where nothing between them is another
  // rank's.
  bool records() const {
    return options_.graphs && options_.device == Device::Cuda && shape_.tp == 1 && shape_.cp == 1;
  }

  int index() const override { return options_.part.stage; }
  int blocks() const override { return options_.part.blocks(); }
  int slots() const override { return options_.slots; }
  Tensor boundary() const override { return {nullptr, residual_shape(), shape_.compute, options_.device}; }
  Tensor output(int slot) override { return slots_.at(slot).residual.back(); }
  Tensor slot_memory(int slot) override { return slots_.at(slot).memory; }
  void slot_restored(Context& context, const Batch& batch, int slot) override;
  void forward(Context& context, const Batch& batch, const SlotRef& ref, BlockRange blocks, double loss_scale) override;
  void recompute(Context& context, const Batch& batch, const SlotRef& ref, BlockRange blocks) override;
  void backward_input(Context& context, const Batch& batch, const SlotRef& ref, BlockRange blocks) override;
  void backward_weight(Context& context, const Batch& batch, const SlotRef& ref, BlockRange blocks) override;
  void backward(Context& context, const Batch& batch, const SlotRef& ref, BlockRange blocks) override;
  void evaluate(Context& context, const Batch& batch, const SlotRef& ref, BlockRange blocks,
                double loss_scale) override;
  void clear_loss(Context& context) override;
  Losses losses(Context& context) override;
  Parameters& parameters() override { return parameters_; }

  // [slots/tp, hidden] the residual stream before a block, or after the last one: what the slot's last forward pass
  // left there. On the first stage; backward puts gradients in its place.
  ConstTensor residual(int slot, int block) const { return slots_.at(slot).residual.at(block); }
  // Logits [rows, vocab] (accumulation dtype) after tokens [first, first + rows) of the batch; a whole model, tp = 1.
  void logits(Context& context, const Batch& batch, int64_t first, const Tensor& logits);

  const ModelShape& shape() const { return shape_; }

 private:
  struct Slot {
    Tensor memory;  // everything below, as bytes
    MicrobatchPlan plan;
    std::vector<Block::Saved> kept;  // by block
    std::vector<Tensor> residual;    // [slots/tp, hidden] before each block and after the last; the first one is
                                     // empty where the stage before hands it over
    std::optional<Head::Saved> head;
    std::vector<int> area;  // by block, between recompute and backward_weight; else -1
  };
  // Memory for what one block makes again, laid out for each mode.
  struct Area {
    Block::Saved selective, full;
    bool taken = false;
  };

  LayerRun run(Context& context) const { return {context, *tp_, cp_.get()}; }
  Shape residual_shape() const { return {shape_.local_slots(), shape_.hidden}; }
  bool first() const { return options_.part.first(); }
  bool last() const { return options_.part.last(); }
  Slot take_slot(Arena& arena, Arena& lists) const;
  Area take_area(Arena& arena) const;
  const Tensor& before(const Slot& slot, const SlotRef& ref, int block) const {
    return block == 0 && !first() ? ref.input : slot.residual[block];
  }
  Block::Saved saved(const Slot& slot, int block) const;
  void free_area(Slot& slot, int block);
  // Queues the work of some blocks of a microbatch. Where it records, all that it queues follows from where slot,
  // input, areas, weights and gradients lie.
  enum class Pass : uint8_t { Forward, Recompute, BackwardInput, BackwardWeight, Backward };
  void queue(Context& context, Pass pass, const SlotRef& ref, BlockRange blocks, FunctionRef<void()> work);
  void forward_blocks(Context& context, const Batch& batch, const SlotRef& ref, BlockRange blocks);
  void head_forward(Context& context, const Batch& batch, const SlotRef& ref, BlockRange blocks, double loss_scale,
                    Head::Mode mode);
  void number_parameters();
  std::span<const LayerKind> layers() const;  // of this stage

  ModelShape shape_;
  Options options_;
  Comm* tp_ = nullptr;
  std::unique_ptr<ContextGroup> cp_;
  std::optional<Embedding> embedding_;
  std::vector<std::unique_ptr<Block>> blocks_;
  std::optional<Head> head_;
  Parameters parameters_;
  Arena weights_;
  Arena activations_;
  Arena lists_;  // on the host, when the activations are not
  std::vector<Slot> slots_;
  Tensor loss_;  // [1] F64, with the activations; where the stage has the head
  std::vector<Area> areas_;
  std::vector<ConstTensor> gathered_;  // by backward_weight, in order
  Replay replay_;
  Replay::Key key_;
};

}  // namespace tessera
