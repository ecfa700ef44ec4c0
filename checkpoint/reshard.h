// Another copy of a checkpoint, in another number of shards: for copying to another site, or for a file system that
// likes its files larger or smaller.
#pragma once

#include <string>

#include "checkpoint/format/storage.h"
#include "checkpoint/reader.h"

namespace tessera {

// Writes what the reader's checkpoint holds into `directory`, as step-NNNNNNNN of `shards` shards of about equal size,
// by the same protocol as a save; bit for bit the same tensors and cursors (diff() finds no difference). Every block is
// checked as it is read; memory for two blocks. Returns the new checkpoint's path. Throws UsageError when shards < 1 or
// the directory has a checkpoint of that step; CheckpointError when a block is damaged; IoError. What was written until
// then is removed.
std::string reshard(CheckpointReader& reader, Storage& storage, const std::string& directory, int shards);

}  // namespace tessera
