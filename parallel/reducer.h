// Weights and gradients between the actions of a schedule: the seam that optim/ implements (plain data parallelism,
// ZeRO).
#pragma once

#include "parallel/schedule/gathers.h"
#include "parallel/state.h"
#include "tensor/context/context.h"

namespace tessera {

class Reducer {
 public:
  virtual ~Reducer() = default;

  // Zeroes the gradients, before the first microbatch.
  virtual void begin_step(Context& context) = 0;

  // After a microbatch's BACKWARD_WEIGHT of a whole stage: its gradients are in memory, with those before it.
  virtual void weight_done(Context& context, int stage, int microbatch) {
    (void)context, (void)stage, (void)microbatch;
  }

  // GATHER: the weights of blocks [first, last) of a stage, whole in Parameter::value from weights_needed() until
  // RELEASE, and under way before. Tables are needed for FORWARD alone. The pipeline gathers no blocks twice at once.
  virtual void gather(Context& context, int stage, BlockRange blocks, GatherFor purpose) = 0;
  virtual void weights_needed(Context& context, int stage, BlockRange blocks) = 0;
  virtual void release(Context& context, int stage, BlockRange blocks) = 0;

  // Before BACKWARD_WEIGHT adds to the gradients of blocks: they have memory.
  virtual void gradients_needed(Context& context, int stage, BlockRange blocks) = 0;

  // REDUCE: adds the gradients of blocks [first, last) of a stage over the ranks that hold the same rows; it may go on
  // beside other actions. In the same order on the ranks of a group. A reducer of sharded gradients takes those of each
  // microbatch and lets go of their memory, others take all of them at the last one.
  virtual void reduce(Context& context, int stage, BlockRange blocks, ReduceTurn turn) = 0;

  // Global L2 norm of the gradient, each element counted once, the same on every rank. After all reduce() of this rank;
  // first adds up what two stages share (a tied table), since they come to their ends at different times.
  virtual double norm(Context& context) = 0;

  // Clips by the norm found, updates the weights, and refreshes the compute copies. learning_rate is the schedule's
  // value for this step; `step` counts from 1.
  virtual void step(Context& context, double learning_rate, int64_t step) = 0;

  // Views of everything that must be saved (master weights and moments).
  virtual std::vector<StateSlice> state() = 0;

  // Views of this rank's part of the gradients, by name of parameter, summed over replicas: after norm(), until the
  // next begin_step().
  virtual std::vector<StateSlice> gradients() = 0;

  // After state() was written into by a loader: refresh the compute copies.
  virtual void state_loaded(Context& context) = 0;
};

}  // namespace tessera
