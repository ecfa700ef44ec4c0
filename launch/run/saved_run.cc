#include "launch/run/saved_run.h"

#include <fmt/format.h>

#include <filesystem>

#include "checkpoint/format/names.h"
#include "checkpoint/format/storage.h"
#include "checkpoint/load.h"
#include "launch/config/parse.h"
#include "launch/run.pb.h"
#include "launch/run/host_state.h"
#include "launch/run/tokenizer_file.h"
#include "scaling/record_file.h"
#include "scaling/training_record.pb.h"

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

std::string saved_tokenizer(const std::string& checkpoint, const CheckpointInfo& info) {
  if (const auto found = info.cursors.texts.find(kTokenizerCursor); found != info.cursors.texts.end())
    return found->second;
  namespace fs = std::filesystem;
  const fs::path run = fs::absolute(checkpoint).lexically_normal().parent_path().parent_path();
  if (!has_record(run.string())) return "";
  TrainingRecord record;
  read_record(run.string(), record);
  return record.tokenizer();
}

Tokenizer open_run_tokenizer(const std::string& name, const std::string& fingerprint) {
  Tokenizer tokenizer = open_tokenizer(name);
  if (!fingerprint.empty() && tokenizer.fingerprint() != fingerprint)
    throw DataError(
        fmt::format("{}: is not the tokenizer that the run was trained with: its fingerprint is {}, the run's "
                    "is {}; give the run's own tokenizer.json",
                    name, tokenizer.fingerprint(), fingerprint));
  return tokenizer;
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
