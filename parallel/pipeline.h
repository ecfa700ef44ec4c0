// The interpreter: runs one rank's list of a pipeline schedule on its stages, a source and a reducer. Knows no model
// and no optimizer.
//
// Messages are posted where the schedule says and waited for where their content is needed: a receive by the compute
// that reads it, a send when its memory is to be written again. Stages that follow each other on one rank share the
// boundary tensor and send nothing. BACKWARD_INPUT and BACKWARD_WEIGHT of the same blocks that follow each other in the
// list run as one (Stage::backward).
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "parallel/mesh.h"
#include "parallel/reducer.h"
#include "parallel/schedule/schedule.h"
#include "parallel/schedule/verify.h"
#include "parallel/source.h"
#include "parallel/stage_runner.h"

namespace tessera {

// Where a step's time went on this rank, in seconds. Communication inside compute, reductions and the optimizer is not
// counted there but as communication.
struct StepTimes {
  double compute = 0;        // FORWARD, RECOMPUTE, BACKWARD_INPUT, BACKWARD_WEIGHT, OFFLOAD, FETCH
  double communication = 0;  // in calls of any group
  double sends = 0;          // waiting for a message to be taken up by another stage
  double bubble = 0;         // waiting for a message from another stage: that it is not ready yet, and its transfer
  double data = 0;           // the source
  double optimizer = 0;      // zeroing gradients, their norm, the update, copies of sharded weights and gradients

  double sum() const { return compute + communication + sends + bubble + data + optimizer; }
};

struct StepResult {
  double loss = 0;           // the head's: the mean over the step's target tokens, the same on every rank
  Losses losses;             // all of the model's, the head's among them, summed over ranks like it
  double gradient_norm = 0;  // before clipping
  int64_t targets = 0;       // target tokens of the step, over all ranks
  StepTimes times;
};

struct EvaluationResult {
  double loss = 0;  // the head's: the mean over the target tokens, the same on every rank
  Losses losses;    // all of the model's, the head's among them
  int64_t targets = 0;
};

// Memory of a pipeline on one rank: boundary tensors that other ranks send to it, where the activations lie, and slots
// in host memory.
struct PipelineBytes {
  int64_t messages = 0, offloaded = 0;
};

class Pipeline {
 public:
  // What a pipeline of this schedule takes on a pipeline rank. stages: its stages, which need no memory for that;
  // figures: what verify(schedule) found.
  static PipelineBytes bytes(std::span<const Stage* const> stages, const PipelineSchedule& schedule,
                             const ScheduleFigures& figures, int rank);

  // The schedule of all ranks is verified here, against the source's microbatches and the stages' slots. stages: those
  // that it places on this rank, in ascending order. reducer: may be null when the schedule has no STEP and no GATHER.
  // All must outlive the pipeline. Takes bytes() of memory. Collective over the mesh's world.
  Pipeline(Mesh& mesh, const std::vector<Stage*>& stages, Source& source, Reducer* reducer,
           const PipelineSchedule& schedule);

  // One optimizer step on the samples from `first_sample` on. Throws NumericalError, on every rank alike, when a loss
  // or the gradient norm is not finite; the weights are then as they were. Throws DataError when the step has no targets.
  StepResult step(Context& context, int64_t first_sample, double learning_rate, int64_t step);

  // Mean loss over the target tokens of the source's next `batches` loads from `first_sample` on, weights untouched;
  // for forward-only schedules. Throws NumericalError when it is not finite, DataError when there are no targets.
  EvaluationResult evaluate(Context& context, int64_t first_sample, int64_t batches, int64_t samples_per_batch);

  // From the next step on tells the observer, after each action on one of this rank's stages, how long it computed.
  // BACKWARD_INPUT and BACKWARD_WEIGHT then run apart even where they are in a row: each has a time, and bits stay what
  // they were. Null: nobody.
  using Observer = std::function<void(const Action& action, double seconds)>;
  void observe(Observer observer) { observer_ = std::move(observer); }

  const Source& source() const { return source_; }  // what its stages get: of context-parallel ranks, their part
  PipelineBytes bytes() const { return {buffers_.capacity(), offloaded_.capacity()}; }

 private:
  struct Step {  // under way
    int64_t number = 0;
    double learning_rate = 0;
    StepResult result;
  };

  StageRunner& runner(int stage);
  // Forgets what an earlier step left on the stages.
  void begin(Context& context);
  // This rank's share of the losses since then; waits for them.
  Losses losses(Context& context);
  // Their sums over all ranks.
  Losses summed(const Losses& shares);
  void run(Context& context, size_t at, Step& step);
  void run_on_stage(Context& context, size_t at, Step& step);
  // Whether the action at `at` is a BACKWARD_INPUT whose BACKWARD_WEIGHT comes next, to be run as one.
  bool backward_in_a_row(size_t at) const;
  // Weights and gradients of a compute action, which may be under way.
  void ready(Context& context, size_t at);
  // GATHER, RELEASE or REDUCE.
  void run_on_weights(Context& context, size_t at);
  template <class Work>
  void timed(double& part, StepTimes& times, Work&& work);

  Mesh& mesh_;
  Comm& tokens_;  // the ranks that hold different tokens: dp*cp
  Comm& shares_;  // the ranks that hold different shares of the loss: those, and along pp
  Source& source_;
  Reducer* reducer_;
  int microbatches_;
  Schedule actions_;                    // of this rank
  std::vector<GatherFor> gathers_for_;  // by action: of a GATHER
  std::vector<ReduceTurn> turns_;       // by action: of a REDUCE
  std::vector<int> runner_of_;          // by stage of the whole pipeline; -1: on another rank
  std::vector<std::unique_ptr<StageRunner>> runners_;
  Observer observer_;
  Arena buffers_;    // messages between stages
  Arena offloaded_;  // slots in host memory
};

}  // namespace tessera
