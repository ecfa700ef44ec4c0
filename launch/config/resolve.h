// Every default of a config, set once, and every rule checked: what lower floors receive is complete and consistent.
#pragma once

#include <cstdint>
#include <string>

#include "launch/config/problems.h"
#include "scaling/planning/layout.h"

namespace tessera {

class RunConfig;  // launch/run.proto

// What a config is resolved against.
struct Surroundings {
  enum class Data : uint8_t { Needed, NotNeeded };  // plan and bench need no data set
  enum class Cuda : uint8_t { NotBuilt, NoGpu, Present };

  int world_size = 1;
  int64_t tokenizer_vocab_size = 0;  // of data.tokenizer, else of the token shards; 0: there is neither
  Data data = Data::Needed;
  Cuda cuda = Cuda::NotBuilt;
  std::string cuda_reason = {};  // why not Present
};

// Sets every field that is not set: to the schema's default, or to what follows from the others (run.dir, run.device,
// parallel.dp, model's sizes, names of sources, the end of the decay). Left unset is only what means nothing here:
// decay_end_step of a CONSTANT schedule, decay_steps of one that is not WSD. run.threads stays 0 for "an equal share of
// this host's cores", which may differ from host to host.
//
// A decay_end_step that is not set becomes run.steps, or warmup_steps when the run is shorter than its warm-up.
//
// Returns how the run is then laid out over the ranks: nothing else needs to work that out again.
//
// Throws UsageError with one line for each broken rule: where the field was set, its path, value, the rule, and what
// would fit. Resolving a resolved config changes nothing.
Layout resolve(RunConfig& config, const Origins& origins, const Surroundings& surroundings);

}  // namespace tessera
