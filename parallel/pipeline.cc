#include "parallel/pipeline.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "parallel/schedule/gathers.h"
#include "parallel/schedule/verify.h"

namespace tessera {
namespace {

using Clock = std::chrono::steady_clock;

constexpr AxisSet kTokenAxes{Axis::Dp, Axis::Cp};  // tp ranks see the same tokens and return the same loss

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// The same numbers on every rank, so that all ranks throw or none.
void check_finite(double value, std::string_view what, int64_t step) {
  if (!std::isfinite(value)) {
    throw NumericalError(
        fmt::format("step {}: the {} is {}; the weights are as they were before it", step, what, value));
  }
}

Comm& share_group(Mesh& mesh) {
  return mesh.group(mesh.extent(Axis::Pp) == 1 ? kTokenAxes : AxisSet{Axis::Pp, Axis::Dp, Axis::Cp});
}

// The most slots that are in host memory at once.
int most_offloaded(const Schedule& actions, int stage) {
  int now = 0, most = 0;
  for (const Action& action : actions) {
    if (action.stage != stage) continue;
    if (action.kind == ActionKind::Offload) most = std::max(most, ++now);
    if (action.kind == ActionKind::Fetch) --now;
  }
  return most;
}

// How a stage on this rank is joined to its neighbours, but for the objects that join it.
StageRunner::Wiring wiring_of(const PipelineSchedule& schedule, const ScheduleFigures& figures, int rank, int stage) {
  const auto other_rank = [&](int neighbour) {
    if (neighbour < 0 || neighbour >= schedule.stages()) return -1;
    const int place = schedule.rank_of_stage[neighbour];
    return place == rank ? -1 : place;
  };
  return {.from = other_rank(stage - 1),
          .to = other_rank(stage + 1),
          .inputs = figures.stages[stage].inputs,
          .offloaded = most_offloaded(schedule.ranks[rank], stage)};
}

}  // namespace

PipelineBytes Pipeline::bytes(std::span<const Stage* const> stages, const PipelineSchedule& schedule,
                              const ScheduleFigures& figures, int rank) {
  PipelineBytes bytes;
  for (const Stage* stage : stages) {
    const StageRunner::Wiring wiring = wiring_of(schedule, figures, rank, stage->index());
    bytes.messages += StageRunner::message_bytes(*stage, wiring);
    bytes.offloaded += StageRunner::offload_bytes(*stage, wiring);
  }
  return bytes;
}

Pipeline::Pipeline(Mesh& mesh, const std::vector<Stage*>& stages, Source& source, Reducer* reducer,
                   const PipelineSchedule& schedule)
    : mesh_(mesh),
      tokens_(mesh.group(kTokenAxes)),
      shares_(share_group(mesh)),
      source_(source),
      reducer_(reducer),
      microbatches_(schedule.microbatches),
      runner_of_(schedule.rank_of_stage.size(), -1) {
  const int rank = mesh.coordinate(Axis::Pp);
  TESSERA_CHECK_EQ(static_cast<int>(schedule.ranks.size()), mesh.extent(Axis::Pp), "ranks of the schedule");
  TESSERA_CHECK_EQ(schedule.microbatches, source.microbatches(), "microbatches of the schedule");
  const ScheduleFigures figures = verify(schedule);
  actions_ = schedule.ranks[rank];
  const bool reduces = std::any_of(actions_.begin(), actions_.end(), [](const Action& action) {
    return action.kind == ActionKind::Step || action.kind == ActionKind::Gather;
  });
  TESSERA_CHECK(reducer != nullptr || !reduces, "a step needs a reducer, and so does a GATHER");
  for (size_t i = 0; i < actions_.size(); ++i) {
    const ActionKind kind = actions_[i].kind;
    gathers_for_.push_back(kind == ActionKind::Gather ? gather_for(actions_, i) : GatherFor::Backward);
    turns_.push_back(kind == ActionKind::Reduce ? reduce_turn(actions_, i) : ReduceTurn::Earlier);
  }

  Comm& pipeline = mesh.pp();
  std::vector<const Stage*> stated;
  for (Stage* stage : stages) {
    const int index = stage->index();
    TESSERA_CHECK(0 <= index && index < schedule.stages() && schedule.rank_of_stage[index] == rank,
                  fmt::format("stage {} is not placed on pipeline rank {}", index, rank));
    const StageFigures& needs = figures.stages[index];
    TESSERA_CHECK(needs.slots <= stage->slots(),
                  fmt::format("the schedule keeps {} microbatches of stage {} alive, which has {} slots", needs.slots,
                              index, stage->slots()));
    StageRunner::Wiring wiring = wiring_of(schedule, figures, rank, index);
    wiring.pipeline = &pipeline;
    if (index > 0 && schedule.rank_of_stage[index - 1] == rank) wiring.before = &runner(index - 1);
    runner_of_[index] = static_cast<int>(runners_.size());
    runners_.push_back(std::make_unique<StageRunner>(*stage, wiring));
    stated.push_back(stage);
  }
  for (int stage = 0; stage < schedule.stages(); ++stage) {
    TESSERA_CHECK(schedule.rank_of_stage[stage] != rank || runner_of_[stage] >= 0,
                  fmt::format("stage {} is missing on pipeline rank {}", stage, rank));
  }
  const PipelineBytes stated_bytes = bytes(stated, schedule, figures, rank);
  buffers_ = Arena("messages", stages.front()->boundary().device(), stated_bytes.messages);
  offloaded_ = Arena("offloaded", Device::Cpu, stated_bytes.offloaded);
  for (const auto& runner : runners_) runner->take_buffers(buffers_, offloaded_);
}

StageRunner& Pipeline::runner(int stage) {
  const int index = runner_of_.at(stage);
  TESSERA_CHECK(index >= 0, fmt::format("stage {} is not on this rank yet", stage));
  return *runners_[index];
}

// Adds the seconds of work to a part, but for what it spent in communication.
template <class Work>
void Pipeline::timed(double& part, StepTimes& times, Work&& work) {
  const Clock::time_point start = Clock::now();
  const double before = mesh_.communication_seconds();
  work();
  const double communication = mesh_.communication_seconds() - before;
  times.communication += communication;
  part += seconds_since(start) - communication;
}

StepResult Pipeline::step(Context& context, int64_t first_sample, double learning_rate, int64_t number) {
  TESSERA_CHECK(reducer_ != nullptr, "a step needs a reducer");
  Step step{.number = number, .learning_rate = learning_rate, .result = {}};
  StepTimes& times = step.result.times;
  timed(times.optimizer, times, [&] { reducer_->begin_step(context); });
  timed(times.data, times, [&] {
    source_.load(first_sample);
    step.result.targets = tokens_.sum(source_.targets());
  });
  if (step.result.targets == 0) {
    throw DataError(fmt::format("step {}: the samples from {} on hold no target token", number, first_sample));
  }
  begin(context);
  for (size_t i = 0; i < actions_.size(); ++i) run(context, i, step);
  for (const auto& runner : runners_) {
    runner->drain();
    const StageRunner::Waited waited = runner->take_waited();
    times.bubble += waited.receives;
    times.sends += waited.sends;
  }
  return step.result;
}

void Pipeline::begin(Context& context) {
  for (const auto& runner : runners_) {
    runner->reset();
    runner->stage().clear_loss(context);
  }
}

Losses Pipeline::losses(Context& context) {
  Losses shares;
  for (const auto& runner : runners_) shares.add(runner->stage().losses(context));
  return shares;
}

Losses Pipeline::summed(const Losses& shares) {
  Losses sums;
  for (const NamedLoss& share : shares.all()) sums.add(share.name, shares_.sum(share.value));
  return sums;
}

bool Pipeline::backward_in_a_row(size_t at) const {
  if (observer_ || at + 1 >= actions_.size() || actions_[at].kind != ActionKind::BackwardInput) return false;
  Action weight = actions_[at];
  weight.kind = ActionKind::BackwardWeight;
  return actions_[at + 1] == weight;
}

void Pipeline::run(Context& context, size_t at, Step& step) {
  const Action& action = actions_[at];
  StepResult& result = step.result;
  StepTimes& times = result.times;
  switch (action.kind) {
    case ActionKind::Gather:
    case ActionKind::Release:
    case ActionKind::Reduce:
      return timed(times.optimizer, times, [&] { run_on_weights(context, at); });
    case ActionKind::Norm: {
      // On a device what was queued before is computed while the host waits for the loss.
      Losses shares;
      timed(times.compute, times, [&] { shares = losses(context); });
      timed(times.optimizer, times, [&] {
        result.losses = summed(shares);
        result.loss = result.losses.of(kHeadLoss);
        result.gradient_norm = reducer_->norm(context);
      });
      for (const NamedLoss& loss : result.losses.all()) check_finite(loss.value, loss.name, step.number);
      check_finite(result.gradient_norm, "gradient norm", step.number);
      return;
    }
    case ActionKind::Step:
      return timed(times.optimizer, times, [&] { reducer_->step(context, step.learning_rate, step.number); });
    default: {
      timed(times.optimizer, times, [&] { ready(context, at); });
      const double before = times.compute;
      timed(times.compute, times, [&] {
        run_on_stage(context, at, step);
        if (observer_) context.synchronize();
      });
      // What the runner waited is neither.
      const StageRunner::Waited waited = runner(action.stage).take_waited();
      times.bubble += waited.receives;
      times.sends += waited.sends;
      times.compute -= waited.receives + waited.sends;
      if (observer_) observer_(action, times.compute - before);
      return;
    }
  }
}

void Pipeline::ready(Context& context, size_t at) {
  if (reducer_ == nullptr) return;
  const Action& action = actions_[at];
  const BlockRange blocks = runner(action.stage).resolved(action.blocks);
  const bool weights = action.kind == ActionKind::Forward || action.kind == ActionKind::Recompute ||
                       action.kind == ActionKind::BackwardInput;
  if (weights) reducer_->weights_needed(context, action.stage, blocks);
  if (action.kind == ActionKind::BackwardWeight || backward_in_a_row(at))
    reducer_->gradients_needed(context, action.stage, blocks);
}

void Pipeline::run_on_weights(Context& context, size_t at) {
  const Action& action = actions_[at];
  const BlockRange blocks = runner(action.stage).resolved(action.blocks);
  switch (action.kind) {
    case ActionKind::Gather:
      return reducer_->gather(context, action.stage, blocks, gathers_for_[at]);
    case ActionKind::Release:
      return reducer_->release(context, action.stage, blocks);
    default:
      return reducer_->reduce(context, action.stage, blocks, turns_[at]);
  }
}

void Pipeline::run_on_stage(Context& context, size_t at, Step& step) {
  const Action& action = actions_[at];
  StageRunner& stage = runner(action.stage);
  const int m = action.microbatch;
  const Batch& batch = source_.batch(m);
  switch (action.kind) {
    case ActionKind::Forward:
      return stage.forward(context, batch, m, action.blocks, 1.0 / static_cast<double>(step.result.targets));
    case ActionKind::BackwardInput:
      if (backward_in_a_row(at)) return stage.backward(context, batch, m, action.blocks);
      return stage.backward_input(context, batch, m, action.blocks);
    case ActionKind::BackwardWeight:
      // Where the two are in a row, the action before has done it.
      if (at == 0 || !backward_in_a_row(at - 1)) stage.backward_weight(context, batch, m, action.blocks);
      // Blocks go from the last to the first.
      if (stage.resolved(action.blocks).first == 0) reducer_->weight_done(context, action.stage, m);
      return;
    case ActionKind::SendForward:
      return stage.send_forward(m);
    case ActionKind::ReceiveForward:
      return stage.receive_forward(m);
    case ActionKind::SendBackward:
      return stage.send_backward(m);
    case ActionKind::ReceiveBackward:
      return stage.receive_backward(m);
    case ActionKind::Recompute:
      return stage.recompute(context, batch, m, action.blocks);
    case ActionKind::Offload:
      return stage.offload(context, m);
    case ActionKind::Fetch:
      return stage.fetch(context, batch, m);
    default:
      throw InternalError(std::string("no action of a stage: ") + name(action.kind));
  }
}

EvaluationResult Pipeline::evaluate(Context& context, int64_t first_sample, int64_t batches,
                                    int64_t samples_per_batch) {
  int64_t targets = 0;
  for (const auto& runner : runners_) runner->stage().clear_loss(context);
  for (int64_t b = 0; b < batches; ++b) {
    source_.load(first_sample + b * samples_per_batch);
    targets += source_.targets();
    for (const auto& runner : runners_) runner->reset();
    for (size_t i = 0; i < actions_.size(); ++i) {
      const Action& action = actions_[i];
      StageRunner& stage = runner(action.stage);
      const int m = action.microbatch;
      switch (action.kind) {
        case ActionKind::Gather:
        case ActionKind::Release:
          run_on_weights(context, i);
          break;
        case ActionKind::Forward:
          ready(context, i);
          stage.evaluate(context, source_.batch(m), m, action.blocks, 1.0);
          break;
        case ActionKind::SendForward:
          stage.hand_on(m);
          break;
        case ActionKind::ReceiveForward:
          stage.receive_forward(m);
          break;
        default:
          throw InternalError(std::string("an evaluation has no ") + name(action.kind));
      }
    }
    // The last messages are read before the next load's tokens are.
    for (const auto& runner : runners_) runner->drain();
  }
  EvaluationResult result;
  result.targets = tokens_.sum(targets);
  if (result.targets == 0) {
    throw DataError(
        fmt::format("evaluation: {} batches from sample {} on hold no target token", batches, first_sample));
  }
  for (const NamedLoss& sum : summed(losses(context)).all()) {
    const double mean = sum.value / static_cast<double>(result.targets);
    if (!std::isfinite(mean)) throw NumericalError(fmt::format("evaluation: the {} is {}", sum.name, mean));
    result.losses.add(sum.name, mean);
  }
  result.loss = result.losses.of(kHeadLoss);
  return result;
}

}  // namespace tessera
