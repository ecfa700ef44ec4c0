// The parts of a run on one rank, put together from a resolved config: what train, eval, generate and bench share.
#pragma once

#include <memory>
#include <vector>

#include "launch/metrics/progress.h"
#include "model/transformer.h"
#include "optim/zero.h"
#include "parallel/mesh.h"
#include "tensor/context.h"

namespace tessera {

class RunConfig;  // launch/run.proto

// The compute dtype that a config names.
DType compute_dtype(const RunConfig& config);

class Assembly {
 public:
  // Makes the mesh, the model and the optimizer with initial weights; all memory of a step is taken here. The world
  // must outlive the assembly. Throws UsageError when ranks and layout do not match, before anything is allocated.
  Assembly(const RunConfig& config, Comm& world, int threads);

  Context& context() { return context_; }
  Mesh& mesh() { return mesh_; }
  Transformer& model() { return model_; }
  ZeroOptimizer& optimizer() { return *optimizer_; }

  // Arena bytes of this rank by category, then what the matrix library holds.
  std::vector<MemoryLine> memory() const;
  int64_t arena_bytes() const;

  // FLOPs that MFU counts for one step over all ranks: three times forward's matrix products (head included), and three
  // times attention's by the actual mask. `pairs`: visible (query, key) pairs of the step, over all samples.
  double step_flops(int64_t pairs) const;

 private:
  int64_t microbatches_per_step_;  // over all data-parallel ranks
  Mesh mesh_;
  Context context_;
  Transformer model_;
  std::unique_ptr<ZeroOptimizer> optimizer_;
};

}  // namespace tessera
