// Stage 0: every rank keeps whole gradients. Parameters of one pipeline stage that are reduced over the same group of
// ranks lie side by side, so that a reduction takes few long messages instead of one for every norm and bias.
#pragma once

#include <cstdint>
#include <vector>

#include "optim/gradients.h"

namespace tessera {

// What lay_out_gradients takes from its arena. Of the parameters only local_shape() and replicas are read.
int64_t whole_gradient_bytes(const Parameters& parameters, DType compute);

// Sets every parameter's gradient to its place in the arena, in the accumulation dtype of `compute`. The gradients of
// one stage and group have no gaps between them; among them those of a multiple of 64 bytes come first, so that all
// matrices are aligned, each kind in the order of its blocks. The memory is as the arena gives it (see
// Reducer::begin_step).
void lay_out_gradients(const Parameters& parameters, DType compute, Arena& arena);

// A run of gradients without gaps, to be added up over one group.
struct GradientBucket {
  AxisSet group;
  Tensor gradients;  // [elements] accumulation dtype
};

// The runs that the gradients form wherever they lie, each at most max_elements long (longer runs are cut: a message
// needs scratch of its own size). Ordered by group, then address; the same on every rank of a pipeline stage that laid
// them out alike.
std::vector<GradientBucket> gradient_buckets(const Parameters& parameters, int64_t max_elements);

// One all-reduce of a REDUCE.
struct GradientMessage {
  AxisSet group;
  int64_t elements;  // accumulation dtype
};
// What WholeGradients sends for the last REDUCE of these blocks of a stage, whose end is not past the stage's, without
// any memory.
std::vector<GradientMessage> gradient_messages(const Parameters& parameters, DType compute, int stage,
                                               BlockRange blocks);

class WholeGradients : public Gradients {
 public:
  // Gives the parameters' gradients their memory. The groups must have been made (Mesh::make_groups).
  WholeGradients(Mesh& mesh, const Parameters& parameters, DType compute, Device device);

  void clear(Context& context) override;
  void needed(Context&, int, BlockRange) override {}
  // The blocks' last REDUCE counts.
  void reduce(Context& context, int stage, BlockRange blocks, ReduceTurn turn) override;

 protected:
  void finish(Context&) override {}

 private:
  struct Reduction {
    Comm* group;
    Tensor gradients;
  };
  struct StageReductions {
    int stage;
    std::vector<Reduction> whole;
    std::vector<std::vector<Reduction>> by_block;
  };

  static std::vector<Reduction> reductions_of(Mesh& mesh, const Parameters& parameters);

  std::vector<StageReductions> reductions_;
};

}  // namespace tessera
