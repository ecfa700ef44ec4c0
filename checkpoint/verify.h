// Reading everything again: is each byte of a checkpoint what was saved?
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/format/storage.h"

namespace tessera {

struct Verification {
  std::string path;
  int64_t files = 0;  // looked at, the manifest included
  int64_t blocks = 0;
  int64_t bytes = 0;
  std::vector<std::string> problems;  // each names the file, and the tensor and rows where a block is damaged

  bool ok() const { return problems.empty(); }
};

// Reads every file once, from the disk rather than from memory where the system can, and compares sizes, hashes of
// files and hashes of blocks. Finds all problems that it can, and does not throw for what is wrong with the checkpoint.
// Files that the manifest does not name are not looked at.
Verification verify(Storage& storage, const std::string& path);

// Part `part` of `parts` that make up the same: every parts-th shard, and with part 0 all the rest.
Verification verify_part(Storage& storage, const std::string& path, int part, int parts);

// Leaves a file VERIFIED with the hash of the manifest in the checkpoint, and takes away what said that it is damaged.
// Throws IoError.
void mark_verified(Storage& storage, const std::string& path);

// Whether the checkpoint is marked, with the manifest that it has now. Throws IoError.
bool is_marked_verified(Storage& storage, const std::string& path);

// Leaves a file DAMAGED with the problem in the checkpoint, so that it never again counts as one to fall back on
// (checkpoint/scan.h, checkpoint/retention.h): its manifest and sizes alone would not show the damage. Throws IoError.
void mark_damaged(Storage& storage, const std::string& path, const std::string& problem);

// What mark_damaged() said of the checkpoint, if it has the manifest that it had then; "" when nothing was said. Throws
// IoError.
std::string marked_damage(Storage& storage, const std::string& path);

// Takes the mark away. Throws IoError.
void clear_damage(Storage& storage, const std::string& path);

}  // namespace tessera
