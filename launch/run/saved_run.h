// A trained model from a checkpoint: what eval and generate start from.
#pragma once

#include <memory>
#include <string>

#include "checkpoint/reader.h"
#include "data/tokenizer/tokenizer.h"
#include "launch/run/assembly.h"

namespace tessera {

class RunConfig;  // launch/run.proto

// The checkpoint that `path` names: a checkpoint itself, a checkpoints/ folder, or a run directory (the newest valid
// one). Warnings about passed-over ones go to standard error, on rank 0. Throws CheckpointError when there is none.
std::string find_checkpoint(Comm& world, const std::string& path);

// Overwrites config with the one that the checkpoint was trained with.
void read_checkpoint_config(const std::string& checkpoint, RunConfig& config, CheckpointInfo& info);

// The fingerprint of the tokenizer that the run's data were made with: of the checkpoint, else of the record in the run
// directory around it; "" when an older version wrote them and there is no record.
std::string saved_tokenizer(const std::string& checkpoint, const CheckpointInfo& info);

// Opens the tokenizer of this name (a tokenizer.json, or "bytes"). Throws DataError with both fingerprints when it is
// not the one with `fingerprint`; "" takes any.
Tokenizer open_run_tokenizer(const std::string& name, const std::string& fingerprint);

// Loads the weights (not the moments) into the parts, whatever layout wrote them. Collective over the world.
void load_weights(Comm& world, const std::string& checkpoint, Assembly& parts);

}  // namespace tessera
