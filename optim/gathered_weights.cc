#include "optim/gathered_weights.h"

#include <fmt/format.h>

#include <algorithm>

#include "parallel/schedule/gathers.h"
#include "tensor/context/copy.h"

namespace tessera {

GatheredWeights::Blocks GatheredWeights::blocks_of(const Parameters& parameters) {
  Blocks blocks;
  for (Parameter* p : parameters) {
    const Reader reader{p, p->tied_to != nullptr ? p->tied_to : p};
    blocks[{p->stage, p->block}].push_back(reader);
    if (p->head_block >= 0 && p->head_block != p->block) blocks[{p->stage, p->head_block}].push_back(reader);
  }
  return blocks;
}

int64_t GatheredWeights::visit(const Blocks& blocks, const Gathering& gathering, DType compute,
                               FunctionRef<void(const Reader&, int64_t)> visit) {
  int64_t offset = 0;
  for (int block = gathering.blocks.first; block < gathering.blocks.last; ++block) {
    const auto readers = blocks.find({gathering.stage, block});
    if (readers == blocks.end()) break;
    for (const Reader& reader : readers->second) {
      const Parameter& p = *reader.parameter;
      if (p.forward_reads_alone && gathering.purpose != GatherFor::Forward) continue;
      // A table that is read by two of these blocks is there already.
      if (p.head_block == block && p.block != block && gathering.blocks.first <= p.block) continue;
      visit(reader, offset);
      offset += Arena::bytes(p.padded_shape(), compute);
    }
  }
  return offset;
}

int64_t GatheredWeights::bytes(const Parameters& parameters, DType compute, const std::vector<Schedule>& lists) {
  const Blocks blocks = blocks_of(parameters);
  int64_t most = 0;
  for (const Schedule& list : lists) {
    std::vector<Gathering> alive;
    int64_t now = 0;
    for (size_t i = 0; i < list.size(); ++i) {
      const Action& a = list[i];
      if (a.kind == ActionKind::Gather) {
        Gathering gathering{.stage = a.stage, .blocks = a.blocks, .purpose = gather_for(list, i)};
        gathering.bytes = visit(blocks, gathering, compute, [](const Reader&, int64_t) {});
        alive.push_back(gathering);
        now += gathering.bytes;
        most = std::max(most, now);
      } else if (a.kind == ActionKind::Release) {
        const auto gone = std::find_if(alive.begin(), alive.end(), [&](const Gathering& gathering) {
          return gathering.stage == a.stage && gathering.blocks == a.blocks;
        });
        TESSERA_CHECK(gone != alive.end(), "RELEASE follows a GATHER of the same blocks");
        now -= gone->bytes;
        alive.erase(gone);
      }
    }
  }
  return most;
}

GatheredWeights::GatheredWeights(Mesh& mesh, const Parameters& parameters, const std::vector<Shard>& shards,
                                 int64_t capacity, Arena& arena)
    : compute_(shards.empty() ? DType::F32 : shards.front().rows.dtype()),
      blocks_(blocks_of(parameters)),
      memory_(arena.take({capacity / size_of(DType::U32)}, DType::U32)) {
  for (const Shard& shard : shards) {
    shards_[shard.parameter] = shard;
    groups_[shard.parameter] = &mesh.group(shard.own.sharers);
  }
  // A step allocates nothing.
  for (Requests& requests : under_way_) requests.reserve(2 * shards.size());
}

std::byte* GatheredWeights::begin_of(const Gathering& gathering) const {
  auto* const begin = static_cast<std::byte*>(memory_.data());
  return &gathering == &alive_[0] ? begin : begin + memory_.bytes() - gathering.bytes;
}

Tensor GatheredWeights::place(const Gathering& gathering, const Reader& reader, int64_t offset) const {
  return {begin_of(gathering) + offset, reader.parameter->padded_shape(), compute_, memory_.device()};
}

void GatheredWeights::gather(const Context& context, int stage, BlockRange blocks, GatherFor purpose) {
  Gathering& gathering = alive_[alive_[0].stage < 0 ? 0 : 1];
  const Gathering& other = alive_[&gathering == &alive_[0] ? 1 : 0];
  TESSERA_CHECK(gathering.stage < 0, "two GATHERs wait for their RELEASE already");
  gathering = {.stage = stage, .blocks = blocks, .purpose = purpose};
  gathering.bytes = visit(blocks_, gathering, compute_, [](const Reader&, int64_t) {});
  TESSERA_CHECK(gathering.bytes + other.bytes <= memory_.bytes(),
                fmt::format("{} bytes of gathered weights do not fit the {} stated", gathering.bytes + other.bytes,
                            memory_.bytes()));
  visit(blocks_, gathering, compute_, [&](const Reader& reader, int64_t offset) {
    start(context, reader, place(gathering, reader, offset), under_way_[&gathering - alive_.data()]);
  });
}

void GatheredWeights::start(const Context& context, const Reader& reader, const Tensor& whole,
                            Requests& requests) const {
  const Shard& shard = shards_.at(reader.source);
  Comm& group = *groups_.at(reader.source);
  const Ownership& own = shard.own;
  const int64_t part_rows = whole.dim(0) / own.parts;
  const int64_t first = own.owner >= 0 ? 0 : own.part * part_rows;
  if (!own.rows.empty()) copy(context, shard.rows, whole.rows(first, first + own.rows.size()));
  if (own.owner >= 0) {
    group.broadcast(whole.rows(0, reader.parameter->rows.size()), own.owner);
  } else {
    requests.push_back(group.start_all_gather(whole.rows(first, first + part_rows), whole));
  }
}

void GatheredWeights::needed(int stage, BlockRange blocks) {
  for (size_t i = 0; i < alive_.size(); ++i) {
    const BlockRange& held = alive_[i].blocks;
    if (alive_[i].stage != stage || held.first >= blocks.last || blocks.first >= held.last) continue;
    for (Request& request : under_way_[i]) request.wait();
    under_way_[i].clear();
    // Also again: a table tied within its stage may have been read by another block meanwhile.
    visit(blocks_, alive_[i], compute_, [&](const Reader& reader, int64_t offset) {
      reader.parameter->value = place(alive_[i], reader, offset).rows(0, reader.parameter->rows.size());
    });
  }
}

void GatheredWeights::release(int stage, BlockRange blocks) {
  const auto found = std::find_if(alive_.begin(), alive_.end(), [&](const Gathering& gathering) {
    return gathering.stage == stage && gathering.blocks == blocks;
  });
  TESSERA_CHECK(found != alive_.end(), "RELEASE follows a GATHER of the same blocks");
  needed(stage, blocks);  // nobody may have read them
  visit(blocks_, *found, compute_, [](const Reader& reader, int64_t) { reader.parameter->value = {}; });
  *found = {};
}

void GatheredWeights::reset() {
  for (const Gathering& gathering : alive_) {
    if (gathering.stage >= 0) release(gathering.stage, gathering.blocks);
  }
}

}  // namespace tessera
