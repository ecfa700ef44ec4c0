// The parts of a run on one rank, put together from a resolved config: what train, eval, generate and bench share.
#pragma once

#include <memory>
#include <vector>

#include "launch/metrics/progress.h"
#include "launch/process/session.h"
#include "launch/run/gpu.h"
#include "model/transformer.h"
#include "optim/zero.h"
#include "parallel/context/source.h"
#include "parallel/mesh.h"
#include "parallel/pipeline.h"
#include "parallel/saved_state.h"
#include "scaling/planning/layout.h"
#include "tensor/context/context.h"

namespace tessera {

class RunConfig;  // launch/run.proto

class Assembly {
 public:
  // Makes the mesh, this rank's stages and the optimizer with initial weights; all memory of a step is taken here, but
  // for the messages that the pipelines take. The world must outlive the assembly. Throws UsageError when ranks and
  // layout do not match, before anything is allocated.
  // Runs where config.run.device says (resolved); layout: the config's; gpu: which one, and how its tensors travel.
  Assembly(const RunConfig& config, const Layout& layout, Comm& world, int threads, const RankGpu& gpu = {});
  // On the rank's own GPU, if any.
  Assembly(const RunConfig& config, const Layout& layout, Session& session);

  Context& context() { return context_; }
  Device device() const { return context_.device(); }
  DeviceLink& link() { return link_; }
  Mesh& mesh() { return mesh_; }
  const ModelShape& shape() const { return shape_; }
  Transformer& stage(size_t i) { return *stages_.at(i); }  // of this rank, in ascending order
  ZeroOptimizer& optimizer() { return *optimizer_; }
  const Parameters& parameters() const { return parameters_; }  // of all stages of this rank
  // What a checkpoint holds of this rank: views of the optimizer's state and of the stages' own.
  std::vector<StateSlice> state() { return saved_slices(*optimizer_, stages()); }
  int64_t model_parameters() const { return model_parameters_; }  // elements of the whole model
  const Layout& layout() const { return layout_; }
  const PipelineSchedule& schedule() const { return layout_.schedule; }

  // The training step on a source of whole microbatches, which are dealt to context-parallel ranks here, and the mean
  // loss on another one. Collective over the world.
  std::unique_ptr<Pipeline> training(Source& whole) { return training(whole, *optimizer_); }
  std::unique_ptr<Pipeline> training(Source& whole, Reducer& reducer);
  std::unique_ptr<Pipeline> evaluation(Source& whole);

  // Visible (query, key) pairs of the pipeline's last step, over all ranks and layers. Collective over dp*cp.
  int64_t visible_pairs(const Pipeline& pipeline);

  // Arena bytes of this rank by category, then what the matrix library holds.
  std::vector<MemoryLine> memory() const;
  int64_t arena_bytes() const;

 private:
  std::vector<Stage*> stages();
  void count(const Pipeline& pipeline);
  // This context-parallel rank's part of a source; the source itself where the group has one rank.
  Source& dealt(Source& whole);

  Layout layout_;
  Context context_;
  DeviceLink link_;
  Mesh mesh_;
  ModelShape shape_;
  std::vector<std::unique_ptr<Transformer>> stages_;
  Parameters parameters_;
  int64_t model_parameters_ = 0;
  std::vector<std::unique_ptr<ContextSource>> dealt_;
  PipelineBytes pipeline_bytes_;  // of the pipelines made so far
  int64_t dealt_bytes_ = 0;
  std::unique_ptr<ZeroOptimizer> optimizer_;
  AbandonOnFailure abandon_on_failure_{link_};
};

}  // namespace tessera
