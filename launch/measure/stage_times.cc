#include "launch/measure/stage_times.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "launch/measure/median.h"
#include "parallel/mesh.h"
#include "parallel/pipeline.h"

namespace tessera {
StageTimes measure_stage_times(Context& context, Mesh& mesh, Pipeline& pipeline, int stages, int64_t first_step,
                               int steps, int64_t samples, double learning_rate) {
  // A stage's pass may be cut into actions of a few blocks each, which add up.
  std::map<std::tuple<int, ActionKind, int64_t, int>, double> passes;  // stage, kind, step, microbatch
  std::vector<double> rests;
  int64_t step = first_step;
  pipeline.observe([&](const Action& action, double seconds) {
    passes[{action.stage, action.kind, step, action.microbatch}] += seconds;
  });
  for (; step < first_step + steps; ++step) {
    const StepTimes times = pipeline.step(context, (step - 1) * samples, learning_rate, step).times;
    rests.push_back(times.data + times.optimizer);
  }
  pipeline.observe(nullptr);

  Comm& world = mesh.world();
  const auto mean_over_ranks = [&](int stage, ActionKind kind) {
    std::vector<double> seconds;
    bool here = false;
    for (const auto& [pass, took] : passes) {
      here |= std::get<0>(pass) == stage;
      if (std::get<0>(pass) == stage && std::get<1>(pass) == kind) seconds.push_back(took);
    }
    return world.sum(median(seconds)) / std::max(1.0, world.sum(here ? 1.0 : 0.0));
  };
  StageTimes found;
  for (int stage = 0; stage < stages; ++stage) {
    found.stages.push_back({.forward = mean_over_ranks(stage, ActionKind::Forward),
                            .backward_input = mean_over_ranks(stage, ActionKind::BackwardInput),
                            .backward_weight = mean_over_ranks(stage, ActionKind::BackwardWeight)});
    found.recompute.push_back(mean_over_ranks(stage, ActionKind::Recompute));
  }
  found.rest = world.max(median(rests));
  return found;
}

SimulationCosts costs_of(const StageTimes& times) {
  double forward = 0, recompute = 0;
  for (size_t stage = 0; stage < times.stages.size(); ++stage) {
    forward += times.stages[stage].forward;
    recompute += times.recompute[stage];
  }
  return {.passes = {.stages = times.stages}, .recompute = recompute / forward};
}

std::string times_of(const StageTimes& times, double StageCosts::*part) {
  std::string text;
  for (const StageCosts& stage : times.stages) text += fmt::format("{}{:.4g}", text.empty() ? "" : ",", stage.*part);
  return text;
}

}  // namespace tessera
