// Gradients from backward to the optimizer's step: the seam that optim/ implements (plain data parallelism, ZeRO).
#pragma once

#include "parallel/schedule.h"
#include "parallel/state.h"
#include "tensor/context.h"

namespace tessera {

class Reducer {
 public:
  virtual ~Reducer() = default;

  // Zeroes the gradients, before the first microbatch.
  virtual void begin_step(Context& context) = 0;

  // Adds the gradients of blocks [first, last) of a stage over the ranks that hold the same rows. Every block of every
  // stage once a step, in the same order on the ranks of a group.
  virtual void reduce(Context& context, int stage, BlockRange blocks) = 0;

  // Global L2 norm of the gradient, each element counted once, the same on every rank. After all reduce() of this rank;
  // first adds up what two stages share (a tied table), since they come to their ends at different times.
  virtual double norm(Context& context) = 0;

  // Clips by the norm found, updates the weights, and refreshes the compute copies. learning_rate is the schedule's
  // value for this step; `step` counts from 1.
  virtual void step(Context& context, double learning_rate, int64_t step) = 0;

  // Views of everything that must be saved (master weights and moments).
  virtual std::vector<StateSlice> state() = 0;

  // After state() was written into by a loader: refresh the compute copies.
  virtual void state_loaded(Context& context) = 0;
};

}  // namespace tessera
