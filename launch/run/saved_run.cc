#include "launch/run/saved_run.h"

#include <fmt/format.h>

#include "checkpoint/format/names.h"
#include "checkpoint/format/storage.h"
#include "checkpoint/load.h"
#include "launch/config/parse.h"
#include "launch/run.pb.h"
#include "launch/run/host_state.h"

namespace tessera {

std::string find_checkpoint(Comm& world, const std::string& path) {
  PosixStorage storage;
  if (storage.exists(join(path, kManifestName))) return path;
  const std::string inner = join(path, "checkpoints");
  const std::string folder = storage.exists(inner) ? inner : path;
  if (!storage.exists(folder)) throw CheckpointError(path + " does not exist: give a checkpoint or a run directory");
  const Found found = find_newest_valid(world, storage, folder);
  if (world.rank() == 0) {
    for (const std::string& warning : found.warnings) fmt::print(stderr, "tessera: warning: {}\n", warning);
  }
  if (!found.checkpoint) throw CheckpointError(folder + " holds no checkpoint");
  return found.checkpoint->path;
}

void read_checkpoint_config(const std::string& checkpoint, RunConfig& config, CheckpointInfo& info) {
  PosixStorage storage;
  info = CheckpointReader(storage, checkpoint).info();
  Origins origins;
  Problems problems;
  parse_config(checkpoint + ": config", info.config, config, origins, problems);
  problems.throw_if_any();
}

void load_weights(Comm& world, const std::string& checkpoint, Assembly& parts) {
  State state;
  // What the model computes with: the optimizer's master weights without its moments, and what stages keep themselves.
  for (StateSlice& slice : parts.state()) {
    if (!slice.name.starts_with(kMomentPrefix)) state.slices.push_back(std::move(slice));
  }
  HostState host(parts.context(), std::move(state));
  PosixStorage storage;
  load(world, storage, checkpoint, host.state(), LoadScope::Subset);
  host.send(parts.context());
  parts.optimizer().state_loaded(parts.context());
}

}  // namespace tessera
