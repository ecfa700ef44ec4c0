// Validation losses: one for each source of data.validation.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "data/order/loader.h"
#include "launch/run/assembly.h"
#include "parallel/pipeline.h"

namespace tessera {

// Called when a batch of a set begins: its number, from 0, and how many there are.
using ValidationProgress = std::function<void(const std::string& set, int64_t batch, int64_t batches)>;

struct ValidationSet {
  std::string name;
  std::unique_ptr<Loader> loader;
  std::unique_ptr<Source> source;  // what the pipeline reads: the loader, and what tells of the progress
  std::unique_ptr<Pipeline> pipeline;
  int64_t batches = 0;  // global batches that are evaluated
};

// Opens every validation source of the config; `samples` of each (rounded up to whole global batches), or all when 0.
// Throws DataError when a source was made with another tokenizer than `fingerprint` (empty: not checked).
std::vector<ValidationSet> open_validation(const RunConfig& config, Assembly& parts, int64_t samples,
                                           const std::string& fingerprint, const ValidationProgress& progress = {});

// Mean loss of the set under the weights as they are. Collective over the mesh.
EvaluationResult evaluate(Assembly& parts, const RunConfig& config, ValidationSet& set);

}  // namespace tessera
