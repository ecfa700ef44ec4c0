// The optimizer: master weights and moments of the rows that this rank owns (optim/ownership.h), and what feeds and
// spreads them: gradients, their norm, gathered weights.
//
// Rajbhandari, Rasley, Ruwase and He 2020, "ZeRO".
//
//   stage  optimizer state  gradients                                weights (compute copies)
//   0      whole            whole, all-reduced                       whole
//   1      owned rows       whole, reduce-scattered once a step      whole, all-gathered after the update
//   2      owned rows       owned rows, a block's while it is made   whole, all-gathered after the update
//   3      owned rows       owned rows, a block's while it is made   owned rows, two blocks' while they are used
//
// Master weights are in the accumulation dtype. When that is the compute dtype they are the compute copy itself, else a
// copy that it is rounded from. Initial weights are a function of (seed, name, global index), the same for every mesh.
#pragma once

#include <memory>
#include <optional>

#include "optim/clip.h"
#include "optim/gathered_weights.h"
#include "optim/sharded_gradients.h"
#include "parallel/reducer.h"

namespace tessera {

class OptimizerConfig;  // optim/optim.proto

class ZeroOptimizer : public Reducer {
 public:
  struct Options {
    uint64_t seed = 1;
    DType compute = DType::F32;          // of the parameters' values
    int zero_stage = 0;                  // 0 to 3
    WireFormat wire = WireFormat::Full;  // from stage 1 on
    std::vector<Schedule> lists = {};    // stage 3: what this rank's pipelines run, for their GATHERs
  };

  // share_out() has given the parameters their parts. Their values must have their memory up to stage 2, in
  // Parameter::padded_shape(); it is overwritten with the initial weights. At stage 3 they get it from GATHER. Their
  // gradients are given theirs here. Parameters and mesh must outlive the optimizer. Collective over the mesh. Throws
  // UsageError when the config breaks a rule.
  ZeroOptimizer(Context& context, Mesh& mesh, const Parameters& parameters, const OptimizerConfig& config,
                const Options& options);
  ~ZeroOptimizer() override;

  void begin_step(Context& context) override;
  void gather(Context& context, int stage, BlockRange blocks, GatherFor purpose) override;
  void weights_needed(Context& context, int stage, BlockRange blocks) override;
  void release(Context& context, int stage, BlockRange blocks) override;
  void gradients_needed(Context& context, int stage, BlockRange blocks) override;
  void reduce(Context& context, int stage, BlockRange blocks, ReduceTurn turn) override;
  double norm(Context& context) override;
  // Needs norm() of this step's gradients when clipping is on; throws NumericalError, weights untouched, when it is not
  // finite.
  void step(Context& context, double learning_rate, int64_t step) override;
  std::vector<StateSlice> state() override;
  std::vector<StateSlice> gradients() override;
  void state_loaded(Context& context) override;

  // Bytes of this rank's arenas, exactly as ZeroOptimizer takes them. They read the parameters' shapes, replicas and
  // parts, not their memory.
  struct Bytes {
    int64_t state;      // master weights (where they are not compute copies) and moments
    int64_t gradients;  // with what their messages need
    int64_t weights;    // stage 3: compute copies of the owned rows; before, the model has whole ones
    int64_t gathered;   // stage 3
  };
  static Bytes bytes(const Parameters& parameters, const MeshShape& mesh, int rank, const Options& options);
  Bytes bytes() const;
  // Of the device: what the norm of the gradients is added up in.
  int64_t norm_bytes() const { return gradient_norm_.bytes(); }

 private:
  // The rows of one parameter that this rank updates, all tensors [rows, ...].
  struct Owned {
    Parameter* parameter;
    Ownership own;
    Tensor gradient;                     // accumulation dtype
    Tensor master, exp_avg, exp_avg_sq;  // accumulation dtype
    Tensor value;                        // compute dtype; the same memory as master when the dtypes agree
  };

  void refresh_values(Context& context);
  // Stages 1 and 2: the other owners' rows of the compute copies.
  void spread_values();
  StateSlice slice(const std::string& name, const Owned& owned, const Tensor& data) const;

  std::unique_ptr<const OptimizerConfig> config_;
  Mesh& mesh_;
  int zero_stage_;
  Arena arena_;
  Arena weights_;
  Arena gathered_arena_;
  std::unique_ptr<Gradients> gradients_;
  GradientNorm gradient_norm_;
  std::vector<Owned> owned_;
  std::optional<GatheredWeights> gathered_;
  std::optional<double> norm_;  // of this step's gradients, once known
};

}  // namespace tessera
