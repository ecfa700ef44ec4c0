// The part of a model that one pipeline rank runs: the seam that model/ implements.
#pragma once

#include "parallel/batch.h"
#include "parallel/parameter.h"
#include "tensor/context.h"

namespace tessera {

class Stage {
 public:
  virtual ~Stage() = default;

  // Number of microbatches whose saved activations fit: slots 0 .. slots() - 1. A microbatch keeps its slot from
  // forward to backward_weight.
  virtual int slots() const = 0;

  // loss_scale: 1 / (target tokens of the whole step, over all ranks), so that every later reduction is a plain sum.
  // Returns this rank's share of the loss (already scaled): the sum over the ranks that hold different tokens is the
  // step's mean loss.
  virtual double forward(Context& context, const Batch& batch, int slot, double loss_scale) = 0;
  virtual void backward_input(Context& context, const Batch& batch, int slot) = 0;
  virtual void backward_weight(Context& context, const Batch& batch, int slot) = 0;

  // Forward without saving anything for backward; returns the same share of the loss.
  virtual double evaluate(Context& context, const Batch& batch, double loss_scale) = 0;

  virtual Parameters& parameters() = 0;
};

}  // namespace tessera
