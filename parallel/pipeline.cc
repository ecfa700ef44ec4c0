#include "parallel/pipeline.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace tessera {
namespace {

constexpr AxisSet kTokenAxes{Axis::Dp, Axis::Cp};  // tp ranks see the same tokens and return the same loss

Comm& token_group(Mesh& mesh) {
  if (mesh.extent(Axis::Pp) != 1) {
    throw UsageError(fmt::format("parallel.pp = {}; there is no schedule for more than one pipeline stage: set it to 1",
                                 mesh.extent(Axis::Pp)));
  }
  return mesh.group(kTokenAxes);
}

// The same numbers on every rank, so that all ranks throw or none.
void check_finite(double value, const char* what, int64_t step) {
  if (!std::isfinite(value)) {
    throw NumericalError(
        fmt::format("step {}: the {} is {}; the weights are as they were before it", step, what, value));
  }
}

}  // namespace

Pipeline::Pipeline(Mesh& mesh, Stage& stage, Source& source, Reducer& reducer, Schedule schedule)
    : tokens_(token_group(mesh)),
      stage_(stage),
      source_(source),
      reducer_(reducer),
      schedule_(std::move(schedule)),
      slot_of_(source.microbatches(), -1),
      microbatch_in_(stage.slots(), -1) {
  const int alive = verify(schedule_, source_.microbatches());
  TESSERA_CHECK(alive > 0, "a step needs a schedule with backward passes: " + to_string(schedule_));
  TESSERA_CHECK(alive <= stage_.slots(),
                fmt::format("the schedule keeps {} microbatches alive, the stage has {} slots", alive, stage_.slots()));
}

int Pipeline::take_slot(int microbatch) {
  const auto free = std::find(microbatch_in_.begin(), microbatch_in_.end(), -1);
  TESSERA_CHECK(free != microbatch_in_.end(), "no slot is free");  // verified at construction
  *free = microbatch;
  return slot_of_[microbatch] = static_cast<int>(free - microbatch_in_.begin());
}

StepResult Pipeline::step(Context& context, int64_t first_sample, double learning_rate, int64_t step) {
  reducer_.begin_step(context);
  source_.load(first_sample);
  StepResult result;
  result.targets = tokens_.sum(source_.targets());
  if (result.targets == 0) {
    throw DataError(fmt::format("step {}: the samples from {} on hold no target token", step, first_sample));
  }
  share_ = 0;
  // A step that threw leaves its microbatches behind.
  std::fill(microbatch_in_.begin(), microbatch_in_.end(), -1);
  for (const Action& action : schedule_) run(context, action, step, learning_rate, result);
  return result;
}

void Pipeline::run(Context& context, const Action& action, int64_t step, double learning_rate, StepResult& result) {
  const int m = action.microbatch;
  switch (action.kind) {
    case ActionKind::Forward:
      share_ += stage_.forward(context, source_.batch(m), take_slot(m), 1.0 / static_cast<double>(result.targets));
      return;
    case ActionKind::BackwardInput:
      return stage_.backward_input(context, source_.batch(m), slot_of_[m]);
    case ActionKind::BackwardWeight:
      stage_.backward_weight(context, source_.batch(m), slot_of_[m]);
      microbatch_in_[slot_of_[m]] = -1;
      return;
    case ActionKind::Reduce:
      return reducer_.reduce(context);
    case ActionKind::Norm:
      result.loss = tokens_.sum(share_);
      result.gradient_norm = reducer_.norm(context);
      check_finite(result.loss, "loss", step);
      check_finite(result.gradient_norm, "gradient norm", step);
      return;
    case ActionKind::Step:
      return reducer_.step(context, learning_rate, step);
    default:
      throw InternalError("the pipeline cannot run " + to_string(action));
  }
}

EvaluationResult evaluate(Context& context, Mesh& mesh, Stage& stage, Source& source, int64_t first_sample,
                          int64_t batches, int64_t samples_per_batch) {
  Comm& tokens = token_group(mesh);
  const Schedule schedule = forward_schedule(source.microbatches());
  double sum = 0;
  int64_t targets = 0;
  for (int64_t b = 0; b < batches; ++b) {
    source.load(first_sample + b * samples_per_batch);
    targets += source.targets();
    for (const Action& action : schedule) {
      sum += stage.evaluate(context, source.batch(action.microbatch), 1.0);
    }
  }
  EvaluationResult result;
  result.targets = tokens.sum(targets);
  if (result.targets == 0) {
    throw DataError(
        fmt::format("evaluation: {} batches from sample {} on hold no target token", batches, first_sample));
  }
  result.loss = tokens.sum(sum) / static_cast<double>(result.targets);
  if (!std::isfinite(result.loss)) throw NumericalError(fmt::format("evaluation: the loss is {}", result.loss));
  return result;
}

}  // namespace tessera
