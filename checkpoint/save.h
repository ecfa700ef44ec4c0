// Saving at once: every rank writes its rows, and the checkpoint appears at once, by rename, or not at all. How it is
// done is told in checkpoint/saver.h, which also saves while training goes on.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "checkpoint/format/storage.h"
#include "parallel/comm/comm.h"
#include "parallel/state.h"

namespace tessera {

// The same on every rank.
struct SaveInfo {
  std::string directory;  // the run's checkpoints/ folder; made when missing
  std::string id;         // of the run, in names of temporary directories: letters, digits, '-' and '_'
  int64_t step = 0;
  int64_t samples = 0;
  int64_t tokens = 0;
  std::string layout;                           // of the ranks: "pp=1 dp=2 cp=1 tp=4"
  std::string config;                           // resolved
  std::map<std::string, std::string> versions;  // of the program; those of the libraries used here are added
};

struct Saved {
  std::string path;
  int64_t bytes = 0;  // of all ranks' tensors
};

// Collective over world; state holds this rank's slices, in host memory. A checkpoint of the same step is replaced.
//
// A failure on any rank throws the same error on every rank (IoError for files; InternalError when the slices of all
// ranks do not make up whole tensors, or ranks disagree on step or cursors), after the temporary directory has been
// removed; older checkpoints are as they were, and training can go on.
Saved save(Comm& world, Storage& storage, const State& state, const SaveInfo& info);

}  // namespace tessera
