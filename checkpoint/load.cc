#include "checkpoint/load.h"

#include <fmt/core.h>

#include <sstream>

#include "checkpoint/exchange.h"
#include "checkpoint/format/names.h"
#include "checkpoint/scan.h"
#include "checkpoint/verify.h"
#include "parallel/comm/agreement.h"

namespace tessera {
namespace {

using Reader = std::unique_ptr<CheckpointReader>;

// Every rank reads manifest and indexes; one of them looks at all files' sizes.
std::optional<RankFailure> try_open(Comm& world, Storage& storage, const std::string& path, Reader& reader) {
  return try_together(world, [&] {
    reader = world.rank() == 0 ? open_complete(storage, path) : std::make_unique<CheckpointReader>(storage, path);
  });
}

// Number of the tensor that a slice is a part of.
size_t match(const CheckpointReader& reader, const StateSlice& slice) {
  const StoredTensor* tensor = reader.find(slice.name);
  const std::string& path = reader.info().path;
  if (tensor == nullptr) {
    throw CheckpointError(fmt::format("{} has no tensor {}: it is of another model or optimizer", path, slice.name));
  }
  if (tensor->shape != slice.global_shape) {
    throw CheckpointError(fmt::format("{}: tensor {} has the shape {}, and this run needs {}", path, slice.name,
                                      tensor->shape.str(), slice.global_shape.str()));
  }
  if (tensor->dtype != slice.data.dtype()) {
    throw CheckpointError(fmt::format("{}: tensor {} is {}, and this run needs {}", path, slice.name,
                                      name(tensor->dtype), name(slice.data.dtype())));
  }
  TESSERA_CHECK(slice.rows.begin >= 0 && slice.rows.end <= slice.global_shape[0], slice.name + slice.rows.str());
  TESSERA_CHECK_EQ(slice.data.shape(), slice.global_shape.with_rows(slice.rows.size()), slice.name);
  TESSERA_CHECK(slice.data.device() == Device::Cpu, slice.name + " is read into host memory");
  return static_cast<size_t>(tensor - reader.tensors().data());
}

// Throws unless the state fits the checkpoint.
void match_all(Comm& world, const CheckpointReader& reader, const State& state, LoadScope scope) {
  std::vector<double> used(reader.tensors().size());
  together(world, [&] {
    for (const StateSlice& slice : state.slices) used[match(reader, slice)] = 1;
  });
  if (scope == LoadScope::Subset) return;
  world.all_reduce_max(Tensor(std::span<double>(used), Shape{static_cast<int64_t>(used.size())}));
  for (size_t i = 0; i < used.size(); ++i) {
    if (used[i] != 0) continue;
    throw CheckpointError(
        fmt::format("{} has a tensor {} that this run has no place for: it is of another model or "
                    "optimizer",
                    reader.info().path, reader.tensors()[i].name));
  }
}

// The failure is the same on every rank.
std::optional<RankFailure> try_read(Comm& world, CheckpointReader& reader, State& state) {
  const HeldByRank held = gather_held(world, state);
  ReadingPlan plan(reader, held);
  try {
    Exchange(world, reader, state).run(plan);
  } catch (const CheckpointError& error) {
    return RankFailure{error.code(), error.what()};
  } catch (const IoError& error) {
    return RankFailure{error.code(), error.what()};
  }
  state.cursors = reader.info().cursors;
  return std::nullopt;
}

std::vector<std::string> split_lines(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

// So that retention does not take it for one to fall back on. Where the checkpoint cannot be written to, it stays as it
// is: what was found is said in any case.
void remember_damage(Comm& world, Storage& storage, const CheckpointReader& reader, const RankFailure& failure) {
  if (world.rank() != 0) return;
  try {
    mark_damaged(storage, reader.info().path, failure.message);
  } catch (const Error&) {
  }
}

// Calls `use` on the checkpoints, newest first, until it returns no failure.
template <class Use>
Found first_usable(Comm& world, Storage& storage, const std::string& directory, const Use& use) {
  std::string names;
  together(world, [&] {
    if (world.rank() != 0) return;
    for (const std::string& name : published_names(storage, directory)) names += name + "\n";
  });
  Found found;
  for (const std::string& name : split_lines(broadcast_text(world, names, 0))) {
    Reader reader;
    auto failure = try_open(world, storage, join(directory, name), reader);
    if (!failure) {
      failure = use(*reader);
      if (failure && failure->code == ExitCode::NoCheckpoint) remember_damage(world, storage, *reader, *failure);
    }
    if (!failure) {
      found.checkpoint = reader->info();
      return found;
    }
    found.warnings.push_back(fmt::format("{} is passed over: {}", name, failure->message));
  }
  if (found.warnings.empty()) return found;
  std::string message = fmt::format("no valid checkpoint in {}", directory);
  for (const std::string& warning : found.warnings) message += "\n  " + warning;
  throw CheckpointError(message + "\nto start again from nothing, move them away");
}

}  // namespace

CheckpointInfo load(Comm& world, Storage& storage, const std::string& path, State& state, LoadScope scope) {
  Reader reader;
  if (const auto failure = try_open(world, storage, path, reader)) throw_failure(*failure);
  match_all(world, *reader, state, scope);
  if (const auto failure = try_read(world, *reader, state)) throw_failure(*failure);
  return reader->info();
}

Found find_newest_valid(Comm& world, Storage& storage, const std::string& directory) {
  return first_usable(world, storage, directory,
                      [](const CheckpointReader&) -> std::optional<RankFailure> { return std::nullopt; });
}

Found resume(Comm& world, Storage& storage, const std::string& directory, State& state, const Accept& accept) {
  return first_usable(world, storage, directory, [&](CheckpointReader& reader) {
    if (accept) together(world, [&] { accept(reader.info()); });
    match_all(world, reader, state, LoadScope::All);
    return try_read(world, reader, state);
  });
}

}  // namespace tessera
