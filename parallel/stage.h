// A part of a model that a pipeline rank runs as one: the seam that model/ implements. A rank may hold several.
//
// Boundary tensors [slots/tp, hidden] are what stages hand each other: a stage's input, and its output. Each is
// overwritten by its gradient on the way back, so that one message buffer serves both directions.
#pragma once

#include <vector>

#include "parallel/batch.h"
#include "parallel/losses.h"
#include "parallel/parameter.h"
#include "parallel/schedule/schedule.h"
#include "parallel/state.h"
#include "tensor/context/context.h"

namespace tessera {

// Where a microbatch's activations lie on a stage.
struct SlotRef {
  int slot = 0;  // from forward to backward_weight
  Tensor input;  // [slots/tp, hidden] the boundary tensor from the stage before, whole from forward to backward_input;
                 // empty on the first stage
};

class Stage {
 public:
  virtual ~Stage() = default;

  virtual int index() const = 0;   // its number in the pipeline; stage 0 takes tokens
  virtual int blocks() const = 0;  // the embedding goes with the first, the head with the last

  // Number of microbatches whose saved activations fit: slots 0 .. slots() - 1. A microbatch keeps its slot from
  // forward to backward_weight.
  virtual int slots() const = 0;

  // A boundary tensor's shape, dtype and device, without memory, and the bytes of slot_memory(): known before the stage
  // has any.
  virtual Tensor boundary() const = 0;
  virtual int64_t slot_bytes() const = 0;

  // [slots/tp, hidden] the stage's output in a slot; before backward_input it must hold the gradient. On the last
  // stage it never leaves the stage.
  virtual Tensor output(int slot) = 0;

  // All of a slot's memory, for offloading: bytes as U32.
  virtual Tensor slot_memory(int slot) = 0;
  // After slot_memory(slot) was filled with what another slot held for this microbatch.
  virtual void slot_restored(Context& context, const Batch& batch, int slot) = 0;

  // Each call runs blocks [first, last) of the stage, in ascending order forward and in descending order backward; the
  // caller calls ranges in that order, and resolves BlockRange's default.
  //
  // loss_scale: 1 / (target tokens of the whole step, over all ranks), so that every later reduction is a plain sum.
  // Where the range ends the model, adds this rank's share of the head's loss to losses().
  virtual void forward(Context& context, const Batch& batch, const SlotRef& ref, BlockRange blocks,
                       double loss_scale) = 0;
  // Makes again what forward did not keep; due before backward_input for blocks that keep less than everything.
  virtual void recompute(Context& context, const Batch& batch, const SlotRef& ref, BlockRange blocks) = 0;
  virtual void backward_input(Context& context, const Batch& batch, const SlotRef& ref, BlockRange blocks) = 0;
  virtual void backward_weight(Context& context, const Batch& batch, const SlotRef& ref, BlockRange blocks) = 0;

  // backward_input and backward_weight in a row: the same bits, but a stage may share communication between the two and
  // let it run beside their compute.
  virtual void backward(Context& context, const Batch& batch, const SlotRef& ref, BlockRange blocks) {
    backward_input(context, batch, ref, blocks);
    backward_weight(context, batch, ref, blocks);
  }

  // forward without keeping anything for backward (the slot is used as scratch, the stage's output is left there).
  virtual void evaluate(Context& context, const Batch& batch, const SlotRef& ref, BlockRange blocks,
                        double loss_scale) = 0;

  // This rank's share of each loss (already scaled) of what has run since clear_loss(): the sum over the ranks that hold
  // different tokens is the mean. Every stage of a model, on every rank, names the same losses in the same order, at 0
  // those that it does not add to; the first is kHeadLoss. They are kept where the stage runs, so that forward waits
  // for no device; losses() does.
  virtual void clear_loss(Context& context) = 0;
  virtual Losses losses(Context& context) = 0;
  double loss(Context& context) { return losses(context).of(kHeadLoss); }

  // Views of what the stage itself must save, such as the biases that balance a router: tensors that no optimizer
  // updates. Their names are unique in the model and begin with no optimizer's word ("master/", "exp_avg/"). A loader
  // writes into the views, and the stage computes with what it finds there.
  virtual std::vector<StateSlice> state() { return {}; }

  virtual Parameters& parameters() = 0;
};

}  // namespace tessera
