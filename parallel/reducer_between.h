// A reducer that stands before another and passes every call on: what watches or delays some of them overrides those,
// and stays right when the seam grows.
#pragma once

#include "parallel/reducer.h"

namespace tessera {

class ReducerBetween : public Reducer {
 public:
  explicit ReducerBetween(Reducer& reducer) : reducer_(reducer) {}  // which must outlive it

  void begin_step(Context& context) override { reducer_.begin_step(context); }
  void weight_done(Context& context, int stage, int microbatch) override {
    reducer_.weight_done(context, stage, microbatch);
  }
  void gather(Context& context, int stage, BlockRange blocks, GatherFor purpose) override {
    reducer_.gather(context, stage, blocks, purpose);
  }
  void weights_needed(Context& context, int stage, BlockRange blocks) override {
    reducer_.weights_needed(context, stage, blocks);
  }
  void release(Context& context, int stage, BlockRange blocks) override { reducer_.release(context, stage, blocks); }
  void gradients_needed(Context& context, int stage, BlockRange blocks) override {
    reducer_.gradients_needed(context, stage, blocks);
  }
  void reduce(Context& context, int stage, BlockRange blocks, ReduceTurn turn) override {
    reducer_.reduce(context, stage, blocks, turn);
  }
  double norm(Context& context) override { return reducer_.norm(context); }
  void step(Context& context, double learning_rate, int64_t step) override {
    reducer_.step(context, learning_rate, step);
  }
  std::vector<StateSlice> state() override { return reducer_.state(); }
  std::vector<StateSlice> gradients() override { return reducer_.gradients(); }
  void state_loaded(Context& context) override { reducer_.state_loaded(context); }

 protected:
  Reducer& reducer_;
};

}  // namespace tessera
