// What lies in a run's checkpoints/ folder. Completeness decides what a checkpoint is, never its number.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/format/storage.h"
#include "checkpoint/reader.h"

namespace tessera {

struct CheckpointEntry {
  enum class State : uint8_t {
    Valid,       // manifest and indexes match, all files are there with their sizes; blocks are checked by verify()
    Broken,      // published, and no longer so
    Unfinished,  // a temporary directory: being written, or left over
  };
  std::string name;
  std::string path;
  int64_t step = 0;
  State state = State::Valid;
  bool verified = false;  // valid, and marked as read again and found right
  std::string problem;    // what is wrong, when broken
  int64_t bytes = 0;      // of all its files, when valid
  std::string layout;
  int64_t modified = 0;  // seconds since 1970; 0 when it cannot be told
};

const char* name(CheckpointEntry::State state);

// Published checkpoints and temporary directories, oldest step first; nothing when there is no such directory. Throws
// IoError when it cannot be listed.
std::vector<CheckpointEntry> scan(Storage& storage, const std::string& directory);

// Names of published checkpoints, whatever their state, newest step first; nothing when there is no such directory.
std::vector<std::string> published_names(Storage& storage, const std::string& directory);

// Opens a checkpoint and looks at all its files' sizes; its step must be the one in its name, if the name has one.
// Throws CheckpointError or IoError.
std::unique_ptr<CheckpointReader> open_complete(Storage& storage, const std::string& path);

}  // namespace tessera
