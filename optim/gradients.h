// The gradients of a rank's parameters, from backward, which adds to Parameter::gradient, to the sums that the
// optimizer reads. How much of them a rank keeps is the stage's: whole_gradients.h (stage 0), sharded_gradients.h (1 to
// 3).
//
// A tied table at both ends of a pipeline is summed in two steps, since the ends finish at different times: over this
// end's group with the rest of its stage, and at last over both ends (join()).
#pragma once

#include <utility>
#include <vector>

#include "optim/ownership.h"
#include "parallel/schedule/gathers.h"
#include "tensor/memory/arena.h"

namespace tessera {

// This rank's part of a gradient.
struct GradientShare {
  Parameter* parameter;
  Ownership own;
  Tensor sum;  // [own.rows, ...] accumulation dtype; whole after join()
};

class Gradients {
 public:
  virtual ~Gradients() = default;

  // Zeroes all of them.
  virtual void clear(Context& context) = 0;
  // See Reducer::gradients_needed.
  virtual void needed(Context& context, int stage, BlockRange blocks) = 0;
  // See Reducer::reduce.
  virtual void reduce(Context& context, int stage, BlockRange blocks, ReduceTurn turn) = 0;
  // Ends the reductions, and adds up the parts of tied tables.
  void join(Context& context);

  // Of every parameter but parts of tied tables (Parameter::tied_to), in the model's order.
  const std::vector<GradientShare>& shares() const { return shares_; }
  const Arena& arena() const { return arena_; }

 protected:
  // Waits for the reductions that are under way.
  virtual void finish(Context& context) = 0;
  // Of every parameter, tied parts included; their sums must have their memory.
  void set_shares(Mesh& mesh, const std::vector<GradientShare>& shares);

  Arena arena_;

 private:
  std::vector<GradientShare> shares_;
  std::vector<std::pair<Tensor, Tensor>> tied_;  // on one rank: the part, and what it is added to
  std::vector<std::pair<Comm*, Tensor>> ends_;   // on two
};

}  // namespace tessera
