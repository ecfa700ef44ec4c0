// Which checkpoints to keep.
#pragma once

#include <string>
#include <vector>

#include "checkpoint/format/storage.h"
#include "parallel/comm/comm.h"

namespace tessera {

struct Retention {
  int keep_last = 2;       // newest valid ones; at least 2
  int64_t keep_every = 0;  // steps that this divides are kept for ever; 0: none
};

struct CheckpointEntry;  // checkpoint/scan.h

// Those of `entries` (scan()) that prune() would remove.
std::vector<CheckpointEntry> superfluous(const std::vector<CheckpointEntry>& entries, const Retention& retention);

// Removes published checkpoints of a checkpoints/ folder that are superfluous. One is when keep_last valid ones are
// newer, when its step is not kept for ever (a broken one never is), and when a newer one is marked VERIFIED; one that
// is itself marked only goes when two newer ones are. Removes also what saves that were cut off left, when a valid one
// is newer. Returns the names removed, oldest first. Call it between saves. Throws UsageError when keep_last < 2;
// IoError.
std::vector<std::string> prune(Storage& storage, const std::string& directory, const Retention& retention);

// The same, collective over world: rank 0 removes; every rank throws what it throws.
std::vector<std::string> prune(Comm& world, Storage& storage, const std::string& directory, const Retention& retention);

}  // namespace tessera
