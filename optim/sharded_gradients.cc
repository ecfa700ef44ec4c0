#include "optim/sharded_gradients.h"

#include <algorithm>
#include <map>

#include "tensor/ops/elementwise.h"

namespace tessera {
namespace {

// The rows of part `part` of n equal ones.
Tensor part_of(const Tensor& whole, int parts, int part) {
  const int64_t rows = whole.dim(0) / parts;
  return whole.rows(part * rows, (part + 1) * rows);
}

// What this rank owns of a whole gradient.
Tensor owned_of(const Tensor& whole, const Ownership& own) {
  const int64_t first = own.owner >= 0 ? 0 : own.part * (whole.dim(0) / own.parts);
  return own.rows.empty() ? whole.rows(0, 0) : whole.rows(first, first + own.rows.size());
}

// Brings the parts of a matrix, summed by the ranks of their numbers, to its owner.
void collect(const Tensor& whole, const Ownership& own, Comm& group) {
  if (own.part != own.owner) return group.send(part_of(whole, own.parts, own.part), own.owner).wait();
  for (int part = 0; part < own.parts; ++part) {
    if (part != own.owner) group.receive(part_of(whole, own.parts, part), part).wait();
  }
}

}  // namespace

std::vector<ShardedGradients::Piece> ShardedGradients::pieces_of(const Parameters& parameters, const MeshShape& mesh,
                                                                 int rank, int zero_stage) {
  std::vector<Piece> pieces;
  for (Parameter* parameter : parameters) {
    const Ownership own = ownership(*parameter, mesh, rank, zero_stage);
    TESSERA_CHECK_EQ(parameter->parts, own.parts, parameter->name + " needs its parts (share_out)");
    pieces.push_back({.parameter = parameter,
                      .own = own,
                      .kept = zero_stage == 1 || !parameter->weight_adds_alone,
                      .whole = {},
                      .sum = {}});
  }
  return pieces;
}

std::array<Tensor, ShardedGradients::kAreas> ShardedGradients::lay_out(std::vector<Piece>& pieces, DType dtype,
                                                                       Arena& arena) {
  std::map<std::pair<int, int>, std::vector<Piece*>> in_turns;  // by stage and block
  for (Piece& piece : pieces) {
    const Parameter& parameter = *piece.parameter;
    if (piece.kept) {
      piece.whole.fill(arena.take(parameter.padded_shape(), dtype));
      piece.sum = owned_of(piece.whole[0], piece.own);
    } else {
      piece.sum = arena.take(parameter.global_shape.with_rows(piece.own.rows.size()), dtype);
      in_turns[{parameter.stage, parameter.block}].push_back(&piece);
    }
  }
  std::array<Tensor, kAreas> areas;
  for (int i = 0; i < kAreas; ++i) {
    int64_t most = 0;
    for (const auto& [where, block] : in_turns) {
      ArenaScope same_memory(arena);
      const int64_t before = arena.used();
      for (Piece* piece : block) piece->whole[i] = arena.take(piece->parameter->padded_shape(), dtype);
      most = std::max(most, arena.used() - before);
    }
    areas[i] = arena.take({most / size_of(DType::U32)}, DType::U32);
  }
  return areas;
}

GradientWire ShardedGradients::make_wire(const std::vector<Piece>& pieces, const Options& options, Arena& arena) {
  int ranks = 1;
  for (const Piece& piece : pieces) ranks = std::max(ranks, piece.own.parts);
  return {options.wire, accumulation_dtype(options.compute), ranks, arena};
}

int64_t ShardedGradients::bytes(const Parameters& parameters, const MeshShape& mesh, int rank, const Options& options) {
  Arena tally = Arena::tally();
  std::vector<Piece> pieces = pieces_of(parameters, mesh, rank, options.zero_stage);
  lay_out(pieces, accumulation_dtype(options.compute), tally);
  make_wire(pieces, options, tally);
  return tally.used();
}

ShardedGradients::ShardedGradients(Mesh& mesh, const Parameters& parameters, const Options& options, Device device)
    : pieces_(pieces_of(parameters, mesh.shape(), mesh.world().rank(), options.zero_stage)) {
  arena_ = Arena("gradients", device, bytes(parameters, mesh.shape(), mesh.world().rank(), options));
  areas_ = lay_out(pieces_, accumulation_dtype(options.compute), arena_);
  wire_.emplace(make_wire(pieces_, options, arena_));
  std::vector<GradientShare> shares;
  for (Piece& piece : pieces_) {
    piece.parameter->gradient = piece.whole[0].rows(0, piece.parameter->rows.size());
    piece.sharers = &mesh.group(piece.own.sharers);
    TESSERA_CHECK_EQ(piece.sharers->rank(), piece.own.part, "the order of ranks in " + piece.own.sharers.str());
    if (piece.own.copies.has(Axis::ZeroReplica)) piece.replicas = &mesh.group({Axis::ZeroReplica});
    shares.push_back({piece.parameter, piece.own, piece.sum});
  }
  set_shares(mesh, shares);
  // A step allocates nothing.
  under_way_.pieces.reserve(pieces_.size());
  under_way_.requests.reserve(pieces_.size());
}

void ShardedGradients::clear(Context& context) {
  finish(context);  // what a step that threw has left
  for (const Piece& piece : pieces_) zero(context, piece.kept ? piece.whole[0] : piece.sum);
  for (const Tensor& area : areas_) zero(context, area);
}

void ShardedGradients::needed(Context&, int stage, BlockRange blocks) {
  for (const Piece& piece : pieces_) {
    Parameter& parameter = *piece.parameter;
    const bool among = parameter.stage == stage && blocks.first <= parameter.block && parameter.block < blocks.last;
    if (piece.kept || !among) continue;
    TESSERA_CHECK_EQ(blocks.last - blocks.first, 1, "blocks whose gradients are made at once");
    parameter.gradient = piece.whole[area_].rows(0, parameter.rows.size());
  }
}

void ShardedGradients::reduce(Context& context, int stage, BlockRange blocks, ReduceTurn turn) {
  finish(context);  // the area that the next block fills
  under_way_.area = area_;
  under_way_.turn = turn;
  area_ = (area_ + 1) % kAreas;
  for (int block = blocks.last; block-- > blocks.first;) {
    for (const Piece& piece : pieces_) {
      if (piece.parameter->stage != stage || piece.parameter->block != block ||
          (piece.kept && turn != ReduceTurn::Last))
        continue;
      under_way_.pieces.push_back(&piece);
      under_way_.requests.push_back(wire_->start(context, *piece.sharers, piece.whole[under_way_.area]));
    }
  }
}

void ShardedGradients::finish(Context& context) {
  for (size_t i = 0; i < under_way_.pieces.size(); ++i) {
    under_way_.requests[i].wait();
    end(context, *under_way_.pieces[i]);
  }
  under_way_.pieces.clear();
  under_way_.requests.clear();
}

void ShardedGradients::end(Context& context, const Piece& piece) const {
  const Tensor& whole = piece.whole[under_way_.area];
  if (piece.own.owner >= 0) collect(whole, piece.own, *piece.sharers);
  if (!piece.kept) {
    add(context, piece.sum, owned_of(whole, piece.own), piece.sum);
    zero(context, whole);
  }
  if (under_way_.turn == ReduceTurn::Last && piece.replicas != nullptr) piece.replicas->all_reduce_sum(piece.sum);
}

}  // namespace tessera
