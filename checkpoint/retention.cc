#include "checkpoint/retention.h"

#include <fmt/core.h>

#include <sstream>

#include "checkpoint/agreement.h"
#include "checkpoint/names.h"
#include "checkpoint/scan.h"

namespace tessera {

std::vector<std::string> prune(Storage& storage, const std::string& directory, int keep_last) {
  if (keep_last < 2) {
    throw UsageError(
        fmt::format("checkpoint.keep_last = {} is too few: keep at least 2, so that a damaged one has one "
                    "before it",
                    keep_last));
  }
  const auto entries = scan(storage, directory);
  std::vector<int64_t> valid;  // newest first
  for (auto it = entries.rbegin(); it != entries.rend(); ++it) {
    if (it->state == CheckpointEntry::State::Valid) valid.push_back(it->step);
  }
  std::vector<std::string> removed;
  for (const CheckpointEntry& entry : entries) {
    const bool leftover = entry.state == CheckpointEntry::State::Unfinished;
    const size_t newer_needed = leftover ? 1 : static_cast<size_t>(keep_last);
    if (valid.size() < newer_needed || entry.step >= valid[newer_needed - 1]) continue;
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

std::vector<std::string> prune(Comm& world, Storage& storage, const std::string& directory, int keep_last) {
  std::string names;
  together(world, [&] {
    if (world.rank() != 0) return;
    for (const std::string& name : prune(storage, directory, keep_last)) names += name + "\n";
  });
  std::istringstream in(broadcast_text(world, names, 0));
  std::vector<std::string> removed;
  for (std::string name; std::getline(in, name);) removed.push_back(name);
  return removed;
}

}  // namespace tessera
