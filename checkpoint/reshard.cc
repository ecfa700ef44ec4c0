#include "checkpoint/reshard.h"

#include <fmt/core.h>

#include "checkpoint/commit.h"
#include "checkpoint/format/names.h"
#include "checkpoint/sharing.h"

namespace tessera {
namespace {

// All tensors, without data: what each of the new shards' writers holds, to share it.
State outline(const CheckpointReader& reader) {
  State state;
  for (const StoredTensor& tensor : reader.tensors()) {
    StateSlice& slice = state.slices.emplace_back();
    slice.name = tensor.name;
    slice.global_shape = tensor.shape;
    slice.rows = {0, tensor.shape[0]};
    slice.data = Tensor(nullptr, tensor.shape, tensor.dtype);
  }
  state.cursors = reader.info().cursors;
  return state;
}

WrittenShard copy_shard(CheckpointReader& reader, Storage& storage, const std::string& directory, int shard,
                        const State& state, const HeldByRank& held) {
  std::vector<Piece> pieces;
  const auto shares = share_rows(held, shard);
  for (size_t i = 0; i < shares.size(); ++i) {
    const StateSlice& slice = state.slices[i];
    for (const Interval& rows : shares[i]) {
      const ConstTensor nothing(nullptr, slice.global_shape.with_rows(rows.size()), slice.data.dtype());
      pieces.push_back({slice.name, slice.global_shape, rows, nothing});
    }
  }
  const ShardLayout layout(pieces);
  std::vector<std::byte> buffer(kBlockBytes);
  return write_shard(storage, directory, shard, layout, [&](const ShardLayout::Block& block) {
    const Piece& piece = pieces[block.piece];
    const StoredTensor& tensor = *reader.find(piece.name);
    const auto bytes = std::span(buffer).first(static_cast<size_t>(block.bytes));
    reader.read(tensor, piece.rows.begin * tensor.row_bytes() + block.first, bytes);
    return std::span<const std::byte>(bytes);
  });
}

}  // namespace

std::string reshard(CheckpointReader& reader, Storage& storage, const std::string& directory, int shards) {
  if (shards < 1) throw UsageError(fmt::format("{} shards: a checkpoint has at least one", shards));
  const CheckpointInfo& from = reader.info();
  if (const std::string there = join(directory, step_name(from.step)); storage.exists(there)) {
    throw UsageError(fmt::format("{} is there already: give another directory", there));
  }
  SaveInfo info;
  info.directory = directory;
  info.id = "reshard";
  info.step = from.step;
  info.samples = from.samples;
  info.tokens = from.tokens;
  info.layout = from.layout;
  info.config = from.config;
  info.versions = from.versions;

  const State state = outline(reader);
  const HeldByRank held(static_cast<size_t>(shards), held_rows(state));
  int64_t bytes = 0;
  for (const StoredTensor& tensor : reader.tensors()) bytes += tensor.bytes();
  const std::string temporary = prepare_directory(storage, info);
  try {
    check_free_space(storage, temporary, bytes);
    std::vector<Contribution> contributions;
    for (int shard = 0; shard < shards; ++shard) {
      contributions.push_back(contribution(state, info, copy_shard(reader, storage, temporary, shard, state, held)));
    }
    return commit(storage, temporary, info, contributions, {});
  } catch (...) {
    storage.remove_tree(temporary);
    throw;
  }
}

}  // namespace tessera
