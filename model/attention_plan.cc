#include "model/attention_plan.h"

#include <algorithm>
#include <cmath>

#include "tensor/check.h"
#include "tensor/ops/rope.h"

namespace tessera {

AttentionPlan::AttentionPlan(const ModelShape& shape, const LayerAttention& kind, Arena& lists)
    : kind_(kind),
      units_(shape.exchange_shape(kind.exchange).units),
      scale_(shape.attention_scale()) {
  if (kind.exchange.is_ring(shape.cp)) {
    ring_.emplace(units_, lists);
    for (int hops = 0; hops < units_.units; ++hops) tiles_.push_back(take_tiles(units_.slots, lists));
  } else {
    if (shape.cp > 1) routes_.emplace(units_, lists);
    tiles_.push_back(take_tiles(ContextRoutes::most_keys(units_), lists));
  }
  problems_.resize(tiles_.size());
}

AttentionPlan::Tiles AttentionPlan::take_tiles(int64_t keys, Arena& arena) const {
  const AttentionTileCapacity capacity = attention_tile_capacity(units_.slots, keys);
  Tiles tiles;
  tiles.offset = arena.take({capacity.offsets}, DType::I32);
  tiles.key_tile = arena.take({capacity.pairs}, DType::I32);
  tiles.full = arena.take({(capacity.pairs + 3) / 4}, DType::I32);  // one byte a pair
  return tiles;
}

void AttentionPlan::make_problem(int hops, const TokenPlaces& queries, const TokenPlaces& keys) {
  const Tiles& tiles = tiles_[hops];
  const std::span<uint8_t> full(static_cast<uint8_t*>(tiles.full.data()), static_cast<size_t>(tiles.key_tile.size()));
  problems_[hops] = {.scale = scale_,
                     .window = kind_.window,
                     .queries = queries,
                     .keys = keys,
                     .tiles = make_attention_tiles(queries, keys, kind_.window, tiles.offset.span<int32_t>(),
                                                   tiles.key_tile.span<int32_t>(), full)};
}

void AttentionPlan::make(const ModelShape& shape, const Batch& batch) {
  const TokenPlaces own{batch.position, batch.document};
  if (shape.cp == 1) return make_problem(0, own, own);
  TESSERA_CHECK(batch.context != nullptr, "a batch of a context-parallel rank comes with its plan");
  TESSERA_CHECK_EQ(batch.context->ranks(), shape.cp, "ranks of the batch's context plan");
  TESSERA_CHECK_EQ(batch.context->slots(), shape.slots, "slots of the batch's context plan");
  const std::span<const ContextPiece> pieces = batch.context->pieces();
  if (ring_) {
    ring_->make(pieces, kind_.window);
    make_problem(0, ring_->own(), ring_->own());
    for (int hops = 1; hops < units_.units; ++hops) {
      const int origin = (units_.unit + units_.units - hops) % units_.units;
      make_problem(hops, ring_->own(), ring_->places(origin, hops));
    }
    return;
  }
  routes_->make(pieces, kind_.window);
  const TokenPlaces keys = routes_->keys();
  const auto slots = static_cast<size_t>(units_.slots);
  make_problem(0, {keys.position.first(slots), keys.document.first(slots)}, keys);
}

MicrobatchPlan::MicrobatchPlan(const ModelShape& shape, Arena& arena, Arena& lists) {
  rope_ = arena.take({shape.position == PositionKind::Rope ? shape.slots : 0, shape.head_dim}, shape.accumulation());
  for (int layer = 0; layer < shape.layers; ++layer) {
    const LayerAttention kind = shape.attention_of(layer);
    const bool known = std::any_of(kinds_.begin(), kinds_.end(), [&](const auto& plan) { return plan.kind() == kind; });
    if (!known) kinds_.emplace_back(shape, kind, lists);
  }
}

void MicrobatchPlan::make(const ModelShape& shape, const Context& context, const Batch& batch) {
  if (shape.position == PositionKind::Rope) rope_table(context, batch.position, shape.rope_theta, rope_);
  for (AttentionPlan& plan : kinds_) plan.make(shape, batch);
}

const AttentionPlan& MicrobatchPlan::attention(const LayerAttention& kind) const {
  const auto plan = std::find_if(kinds_.begin(), kinds_.end(), [&](const auto& p) { return p.kind() == kind; });
  TESSERA_CHECK(plan != kinds_.end(), "a layer's kind of attention is among the model's");
  return *plan;
}

}  // namespace tessera
