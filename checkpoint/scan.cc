#include "checkpoint/scan.h"

#include <fmt/core.h>

#include <algorithm>

#include "checkpoint/format/manifest.h"
#include "checkpoint/format/names.h"
#include "checkpoint/manifest.pb.h"
#include "checkpoint/verify.h"

namespace tessera {
namespace {

CheckpointEntry look_at(Storage& storage, const std::string& directory, const std::string& name) {
  CheckpointEntry entry;
  entry.name = name;
  entry.path = join(directory, name);
  try {
    entry.modified = storage.modified(entry.path);
    if (const auto step = temporary_step(name)) {
      entry.step = *step;
      entry.state = CheckpointEntry::State::Unfinished;
      return entry;
    }
    entry.step = *published_step(name);
    const auto reader = open_complete(storage, entry.path);
    entry.layout = reader->info().layout;
    entry.bytes = stored_bytes(reader->manifest());
    entry.verified = is_marked_verified(storage, entry.path);
    if (const std::string damage = marked_damage(storage, entry.path); !damage.empty()) throw CheckpointError(damage);
  } catch (const Error& error) {
    entry.state = CheckpointEntry::State::Broken;
    entry.problem = error.what();
  }
  return entry;
}

}  // namespace

const char* name(CheckpointEntry::State state) {
  switch (state) {
    case CheckpointEntry::State::Valid:
      return "valid";
    case CheckpointEntry::State::Broken:
      return "broken";
    case CheckpointEntry::State::Unfinished:
      return "unfinished";
  }
  return "?";
}

std::vector<CheckpointEntry> scan(Storage& storage, const std::string& directory) {
  std::vector<CheckpointEntry> entries;
  if (!storage.exists(directory)) return entries;
  for (const auto& [name, is_directory] : storage.list(directory)) {
    if (!is_directory || (!published_step(name) && !temporary_step(name))) continue;
    entries.push_back(look_at(storage, directory, name));
  }
  std::stable_sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.step < b.step; });
  return entries;
}

std::vector<std::string> published_names(Storage& storage, const std::string& directory) {
  std::vector<std::string> names;
  if (!storage.exists(directory)) return names;
  for (const auto& [name, is_directory] : storage.list(directory)) {
    if (is_directory && published_step(name)) names.push_back(name);
  }
  std::sort(names.begin(), names.end(),
            [](const auto& a, const auto& b) { return *published_step(a) > *published_step(b); });
  return names;
}

std::unique_ptr<CheckpointReader> open_complete(Storage& storage, const std::string& path) {
  auto reader = std::make_unique<CheckpointReader>(storage, path);
  reader->check_sizes();
  const auto step = published_step(base_name(path));
  if (step && *step != reader->info().step) {
    throw CheckpointError(fmt::format("{} says in its manifest that it is step {}", path, reader->info().step));
  }
  return reader;
}

}  // namespace tessera
