// The interpreter: runs a schedule on a stage, a source and a reducer. Knows no model and no optimizer.
#pragma once

#include <vector>

#include "parallel/mesh.h"
#include "parallel/reducer.h"
#include "parallel/schedule.h"
#include "parallel/schedule_text.h"
#include "parallel/schedule_verify.h"
#include "parallel/source.h"
#include "parallel/stage.h"

namespace tessera {

struct StepResult {
  double loss = 0;           // mean over the step's target tokens, the same on every rank
  double gradient_norm = 0;  // before clipping
  int64_t targets = 0;       // target tokens of the step, over all ranks
};

class Pipeline {
 public:
  // The schedule is verified here, against the source's microbatches and the stage's slots. All must outlive the
  // pipeline. Collective over the mesh's world: the groups are made here. Throws UsageError when the mesh has more than
  // one stage (parallel.pp).
  Pipeline(Mesh& mesh, Stage& stage, Source& source, Reducer& reducer, Schedule schedule);

  // One optimizer step on the samples from `first_sample` on. Throws NumericalError, on every rank alike, when loss or
  // gradient norm is not finite; the weights are then as they were. Throws DataError when the step has no targets.
  StepResult step(Context& context, int64_t first_sample, double learning_rate, int64_t step);

 private:
  int take_slot(int microbatch);
  void run(Context& context, const Action& action, int64_t step, double learning_rate, StepResult& result);

  Comm& tokens_;  // the ranks that hold different tokens: dp*cp
  Stage& stage_;
  Source& source_;
  Reducer& reducer_;
  Schedule schedule_;
  std::vector<int> slot_of_;        // by microbatch, while it is alive
  std::vector<int> microbatch_in_;  // by slot; -1: free
  double share_ = 0;                // this rank's share of the loss so far
};

// Mean loss over the target tokens of `source`'s next `batches` loads from `first_sample` on, weights untouched. The
// same on every rank. Throws NumericalError when it is not finite, DataError when there are no targets.
struct EvaluationResult {
  double loss = 0;
  int64_t targets = 0;
};
EvaluationResult evaluate(Context& context, Mesh& mesh, Stage& stage, Source& source, int64_t first_sample,
                          int64_t batches, int64_t samples_per_batch);

}  // namespace tessera
