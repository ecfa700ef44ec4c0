// What a microbatch costs on each stage, measured: the times that `tessera schedule` and parallel.times take.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "scaling/planning/simulate.h"

namespace tessera {

class Context;
class Mesh;
class Pipeline;

struct StageTimes {
  std::vector<StageCosts> stages;  // by stage of the whole pipeline; seconds, the median over its microbatches
  std::vector<double> recompute;   // the same of RECOMPUTE
  double rest = 0;                 // a step's data and optimizer on the slowest rank, the median
};

// Runs `steps` training steps, numbered from `first_step` on, each on `samples` samples, and times every compute
// action. Ranks that share a stage give the mean of their medians. Collective over the mesh's world; the same on every
// rank.
StageTimes measure_stage_times(Context& context, Mesh& mesh, Pipeline& pipeline, int stages, int64_t first_step,
                               int steps, int64_t samples, double learning_rate);

// What the simulator makes a step of, but for `rest`. RECOMPUTE is the same share of FORWARD on all stages there: the
// mean.
SimulationCosts costs_of(const StageTimes& times);

// "0.011,0.012,0.011": one part of all stages, as parallel.times and `tessera schedule` take it.
std::string times_of(const StageTimes& times, double StageCosts::*part);

}  // namespace tessera
