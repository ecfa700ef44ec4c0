// What a run's record says of the run itself, whatever comes of it.
#pragma once

#include <cstdint>

namespace tessera {

class Phase;
class RunConfig;       // launch/run.proto
class TrainingRecord;  // scaling/training_record.proto

// Sets name, model, data, schedule, seed and layout. seed: that the run began with. The phase has begun.
void set_facts(TrainingRecord& facts, const RunConfig& config, uint64_t seed, int ranks, Phase& phase);

}  // namespace tessera
