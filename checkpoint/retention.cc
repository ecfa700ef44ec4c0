#include "checkpoint/retention.h"

#include <fmt/core.h>

#include <sstream>

#include "checkpoint/format/names.h"
#include "checkpoint/scan.h"
#include "parallel/comm/agreement.h"

namespace tessera {
namespace {

bool is_superfluous(const CheckpointEntry& entry, const std::vector<CheckpointEntry>& all, const Retention& retention) {
  int newer_valid = 0, newer_verified = 0;
  for (const CheckpointEntry& other : all) {
    if (other.state != CheckpointEntry::State::Valid || other.step <= entry.step) continue;
    ++newer_valid;
    newer_verified += other.verified;
  }
  if (entry.state == CheckpointEntry::State::Unfinished) return newer_valid > 0;
  const bool for_ever = entry.state == CheckpointEntry::State::Valid && retention.keep_every > 0 &&
                        entry.step % retention.keep_every == 0;
  return !for_ever && newer_valid >= retention.keep_last && newer_verified >= (entry.verified ? 2 : 1);
}

}  // namespace

std::vector<CheckpointEntry> superfluous(const std::vector<CheckpointEntry>& entries, const Retention& retention) {
  if (retention.keep_last < 2) {
    throw UsageError(
        fmt::format("checkpoint.keep_last = {} is too few: keep at least 2, so that a damaged one has one "
                    "before it",
                    retention.keep_last));
  }
  std::vector<CheckpointEntry> found;
  for (const CheckpointEntry& entry : entries) {
    if (is_superfluous(entry, entries, retention)) found.push_back(entry);
  }
  return found;
}

std::vector<std::string> prune(Storage& storage, const std::string& directory, const Retention& retention) {
  std::vector<std::string> removed;
  for (const CheckpointEntry& entry : superfluous(scan(storage, directory), retention)) {
    const bool leftover = entry.state == CheckpointEntry::State::Unfinished;
    std::string path = entry.path;
    if (!leftover) {
      // Out of sight first: a removal that is cut off must not leave something that looks like a broken checkpoint.
      path = join(directory, temporary_name(entry.step, "removed"));
      storage.remove_tree(path);
      storage.rename(entry.path, path);
    }
    storage.remove_tree(path);
    removed.push_back(entry.name);
  }
  return removed;
}

std::vector<std::string> prune(Comm& world, Storage& storage, const std::string& directory,
                               const Retention& retention) {
  std::string names;
  together(world, [&] {
    if (world.rank() != 0) return;
    for (const std::string& name : prune(storage, directory, retention)) names += name + "\n";
  });
  std::istringstream in(broadcast_text(world, names, 0));
  std::vector<std::string> removed;
  for (std::string name; std::getline(in, name);) removed.push_back(name);
  return removed;
}

}  // namespace tessera
