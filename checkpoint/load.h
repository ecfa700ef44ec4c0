// Loading into any layout: every block of the files that any rank wants is read once, by one of those ranks, checked,
// and sent to the others (checkpoint/reading_plan.h). A rank needs its own slices and one block of memory.
//
// All calls are collective over world, and an error on one rank is the same error on every rank. Nothing is written
// into the checkpoint's directory.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/format/storage.h"
#include "checkpoint/reader.h"
#include "parallel/comm/comm.h"
#include "parallel/state.h"

namespace tessera {

enum class LoadScope : uint8_t {
  All,     // every tensor of the checkpoint must have a place in some rank's state
  Subset,  // the state may be a part: weights without moments
};

// Overwrites the slices' data and the cursors of `state` from the checkpoint at `path`. Throws CheckpointError naming
// the tensor when one is missing, has another shape or dtype, or has no place (LoadScope::All), before anything is
// overwritten; and naming the file when it is damaged, when data may hold anything.
CheckpointInfo load(Comm& world, Storage& storage, const std::string& path, State& state,
                    LoadScope scope = LoadScope::All);

struct Found {
  std::optional<CheckpointInfo> checkpoint;  // nothing: there is none at all, start fresh
  std::vector<std::string> warnings;         // a line for each newer one that was passed over, and why
};

// The newest checkpoint of a checkpoints/ folder whose manifest, indexes and file sizes are right. Throws
// CheckpointError when there are checkpoints and none is valid; IoError when the folder cannot be listed.
Found find_newest_valid(Comm& world, Storage& storage, const std::string& directory);

// May refuse a checkpoint by throwing (its config differs); called on every rank before anything is overwritten.
using Accept = std::function<void(const CheckpointInfo&)>;

// Finds the newest checkpoint that is valid and loads it; one that turns out damaged is passed over with a warning for
// the one before. A checkpoint of another model, or that `accept` refuses, is an error at once. Throws as
// find_newest_valid and load.
Found resume(Comm& world, Storage& storage, const std::string& directory, State& state, const Accept& accept = {});

}  // namespace tessera
