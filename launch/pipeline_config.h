// What a resolved config says about its pipeline: the schedule, and which blocks its stages have.
#pragma once

#include <span>
#include <vector>

#include "parallel/partition.h"
#include "parallel/schedule.h"

namespace tessera {

class RunConfig;  // launch/run.proto

// Microbatches of a step on each data-parallel rank; parallel.dp is resolved.
int microbatches_of(const RunConfig& config);

// Stages of the config's pipeline, over all its ranks.
int stages_of(const RunConfig& config);

// parallel.blocks_per_stage, or, where it is not set, balanced by cost. Throws UsageError where blocks and stages do
// not fit.
std::vector<StagePart> stage_parts(const RunConfig& config, const ModelCost& cost);

std::vector<int> blocks_of(std::span<const StagePart> parts);

// The config's schedule on these stages, with recomputation, messages, gathered weights, reductions and the step.
// Throws UsageError where the config breaks a rule.
PipelineSchedule training_schedule(const RunConfig& config, std::span<const StagePart> parts);

}  // namespace tessera
