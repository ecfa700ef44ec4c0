#include "checkpoint/save.h"

#include <fmt/core.h>

#include <algorithm>
#include <cctype>
#include <optional>

#include "checkpoint/agreement.h"
#include "checkpoint/commit.h"
#include "checkpoint/names.h"
#include "checkpoint/shard_file.h"

namespace tessera {
namespace {

void check_info(const SaveInfo& info) {
  const bool plain = std::all_of(info.id.begin(), info.id.end(),
                                 [](unsigned char c) { return std::isalnum(c) != 0 || c == '-' || c == '_'; });
  TESSERA_CHECK(plain && !info.id.empty(), "the run's id is part of a file name: " + info.id);
  TESSERA_CHECK(info.step >= 0, "steps are counted from 0");
}

// Every rank's contribution, on rank 0.
std::vector<Contribution> gather(Comm& world, Contribution own) {
  std::vector<Contribution> all;
  if (world.rank() != 0) {
    send_text(world, own.manifest, 0);
    send_text(world, own.index, 0);
    return all;
  }
  all.push_back(std::move(own));
  for (int rank = 1; rank < world.size(); ++rank) {
    Contribution& theirs = all.emplace_back();
    theirs.manifest = receive_text(world, rank);
    theirs.index = receive_text(world, rank);
  }
  return all;
}

std::optional<RankFailure> try_save(Comm& world, Storage& storage, const State& state, const SaveInfo& info,
                                    Saved& saved) {
  const std::string temporary = join(info.directory, temporary_name(info.step, info.id));
  std::vector<Piece> pieces;
  auto failure = try_together(world, [&] {
    check_info(info);
    pieces = pieces_to_write(state);
    if (world.rank() == 0) prepare_directory(storage, info);
  });
  if (failure) return failure;

  int64_t bytes = 0;
  for (const Piece& piece : pieces) bytes += piece.data.bytes();
  saved.bytes = world.sum(bytes);
  failure = try_together(world, [&] {
    if (world.rank() == 0) check_free_space(storage, temporary, saved.bytes);
  });
  if (failure) return failure;

  Contribution own;
  failure = try_together(
      world, [&] { own = contribution(state, info, write_shard(storage, temporary, world.rank(), pieces)); });
  if (failure) return failure;

  const auto contributions = gather(world, std::move(own));
  return try_together(world, [&] {
    if (world.rank() == 0) commit(storage, temporary, info, contributions);
  });
}

}  // namespace

Saved save(Comm& world, Storage& storage, const State& state, const SaveInfo& info) {
  Saved saved{join(info.directory, step_name(info.step)), 0};
  auto failure = try_save(world, storage, state, info, saved);
  if (!failure) return saved;

  failure->message = fmt::format("step {} is not saved: {}", info.step, failure->message);
  const auto leftover = try_together(world, [&] {
    if (world.rank() == 0) storage.remove_tree(join(info.directory, temporary_name(info.step, info.id)));
  });
  if (leftover) failure->message += fmt::format("; and what was written of it stays: {}", leftover->message);
  throw_failure(*failure);
}

}  // namespace tessera
