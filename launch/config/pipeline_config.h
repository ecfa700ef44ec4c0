// What a resolved config says about its pipeline: the schedule, and which blocks its stages have.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "parallel/partition.h"
#include "parallel/schedule/schedule.h"

namespace tessera {

class RunConfig;  // launch/run.proto

// Microbatches of a step on each data-parallel rank; parallel.dp is resolved.
int microbatches_of(const RunConfig& config);

// Whether parallel.schedule may be this: a kind, file:PATH or search.
bool is_schedule(const std::string& text);

// Microbatches that a schedule from a file is for; 0 where it is none.
int file_microbatches(const RunConfig& config);

// Stages of the config's pipeline, over all its ranks.
int stages_of(const RunConfig& config);

// parallel.blocks_per_stage, or, where it is not set, balanced by cost. Throws UsageError where blocks and stages do
// not fit.
std::vector<StagePart> stage_parts(const RunConfig& config);

std::vector<int> blocks_of(std::span<const StagePart> parts);

// The config's schedule on these stages, generated, searched for or read from a file, with recomputation, messages,
// gathered weights, reductions and the step, as far as a file does not have them; verified. Throws UsageError where the
// config breaks a rule, and with the lists and an arrow where the schedule would deadlock or exceeds parallel.memory_limit.
PipelineSchedule training_schedule(const RunConfig& config, std::span<const StagePart> parts);

}  // namespace tessera
