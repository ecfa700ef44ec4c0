// The optimizer: master weights, moments, and the reduction of gradients that feeds them.
//
// Rajbhandari, Rasley, Ruwase and He 2020, "ZeRO". Each rank updates the rows of a parameter that it owns. At stage 0
// (plain data parallelism), which is what this version has, it owns every row that it holds, and the replicas all make
// the same update. At stages 1 to 3 it will own a row range of that range (parallel/shard.h).
//
// Master weights are in the accumulation dtype. When that is the compute dtype they are the parameter's value itself,
// else a copy that the value is rounded from. Initial weights are a function of (seed, name, global index), the same
// for every mesh.
#pragma once

#include <optional>

#include "optim/clip.h"
#include "optim/gradients.h"
#include "parallel/reducer.h"

namespace tessera {

class OptimizerConfig;  // optim/optim.proto

// Bytes of the optimizer's arena on this rank: master weights and moments, exactly as ZeroOptimizer takes them; the
// gradients are gradient_bytes() more. Reads the parameters' shapes and replicas, not their memory.
int64_t optimizer_bytes(const Parameters& parameters, DType compute);

class ZeroOptimizer : public Reducer {
 public:
  struct Options {
    uint64_t seed = 1;
    DType compute = DType::F32;  // of the parameters' values
    int zero_stage = 0;          // UsageError when this version does not have it
  };

  // The parameters' values must have their memory; it is overwritten with the initial weights. Their gradients are
  // given theirs here. Parameters and mesh must outlive the optimizer. Collective over the mesh. Throws UsageError when
  // the config breaks a rule.
  ZeroOptimizer(Context& context, Mesh& mesh, const Parameters& parameters, const OptimizerConfig& config,
                const Options& options);
  ~ZeroOptimizer() override;

  void begin_step(Context& context) override;
  void reduce(Context& context, int stage, BlockRange blocks) override;
  double norm(Context& context) override;
  // Needs norm() of this step's gradients when clipping is on; throws NumericalError, weights untouched, when it is not
  // finite.
  void step(Context& context, double learning_rate, int64_t step) override;
  // The slices' replicas are the ranks of the parameter's replica group.
  std::vector<StateSlice> state() override;
  void state_loaded(Context& context) override;

  const Arena& arena() const { return arena_; }               // optimizer_bytes()
  const Arena& gradient_arena() const { return gradients_; }  // gradient_bytes()

 private:
  // The rows of one parameter that this rank updates, all tensors [rows, ...].
  struct Owned {
    Parameter* parameter;
    Interval rows;
    Tensor gradient;                     // accumulation dtype
    Tensor master, exp_avg, exp_avg_sq;  // accumulation dtype
    Tensor value;                        // compute dtype; the same memory as master when the dtypes agree
    int replica, replicas;               // who else owns exactly these rows
  };
  struct Reduction {
    Comm* group;
    Tensor gradients;
  };
  struct StageReductions {
    int stage;
    std::vector<Reduction> whole;
    std::vector<std::vector<Reduction>> by_block;
  };

  std::vector<Reduction> reductions_of(Mesh& mesh, const Parameters& parameters) const;
  void join_tied(Context& context);

  void refresh_values(Context& context);

  std::unique_ptr<const OptimizerConfig> config_;
  Arena arena_;
  Arena gradients_;
  std::vector<Owned> owned_;
  std::vector<StageReductions> reductions_;
  std::vector<Reduction> ends_;                              // tied tables on two pipeline ranks
  std::vector<std::pair<Parameter*, Parameter*>> tied_;      // on one: the part, and what it is added to
  GradientNorm gradient_norm_;
  std::optional<double> norm_;  // of this step's gradients, once known
};

}  // namespace tessera
