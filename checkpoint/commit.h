// What rank 0 does around the ranks' writing: the directory before, and afterwards manifest, view and publication.
#pragma once

#include <string>
#include <vector>

#include "checkpoint/format/shard_file.h"
#include "checkpoint/save.h"

namespace tessera {

// What a rank tells rank 0 of what it wrote: its part of the manifest, and its index.
struct Contribution {
  std::string manifest;  // serialised, with what every rank must agree on
  std::string index;
};

Contribution contribution(const State& state, const SaveInfo& info, const WrittenShard& written);

// Makes the empty temporary directory and returns its path. What earlier saves left of this step, or under this id, is
// removed.
std::string prepare_directory(Storage& storage, const SaveInfo& info);

// Throws IoError when fewer than `bytes` and a twentieth more are free.
void check_free_space(Storage& storage, const std::string& directory, int64_t bytes);

// Checks that the contributions, in rank order, make up whole tensors; writes view and manifest; publishes. Returns the
// checkpoint's path.
std::string commit(Storage& storage, const std::string& temporary, const SaveInfo& info,
                   const std::vector<Contribution>& contributions, const Failpoint& failpoint);

}  // namespace tessera
