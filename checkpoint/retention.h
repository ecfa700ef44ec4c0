// Which checkpoints to keep.
#pragma once

#include <string>
#include <vector>

#include "checkpoint/storage.h"
#include "parallel/comm.h"

namespace tessera {

// Removes what lies behind the keep_last newest valid checkpoints of a checkpoints/ folder (older step-* directories,
// broken ones included) and leftovers of saves that are older than the newest valid one. What is not behind a newer
// valid checkpoint is never removed. Returns the names removed, oldest first. Call it between saves.
// Throws UsageError when keep_last < 2; IoError.
std::vector<std::string> prune(Storage& storage, const std::string& directory, int keep_last);

// The same, collective over world: rank 0 removes; every rank throws what it throws.
std::vector<std::string> prune(Comm& world, Storage& storage, const std::string& directory, int keep_last);

}  // namespace tessera
