#include "model/attention/attention_plan.h"

#include <algorithm>
#include <cmath>

#include "tensor/check.h"
#include "tensor/ops/rope.h"

namespace tessera {

AttentionPlan::AttentionPlan(const ModelShape& shape, const LayerAttention& kind, Arena& arena, Arena& lists)
    : kind_(kind), units_(shape.exchange_shape(kind.exchange).units), scale_(shape.attention_scale()) {
  if (kind.exchange.is_ring(shape.cp)) {
    ring_.emplace(units_, lists);
    for (int hops = 0; hops < units_.units; ++hops) tiles_.push_back(take_tiles(units_.slots, arena, lists));
  } else {
    if (shape.cp > 1) routes_.emplace(units_, lists);
    tiles_.push_back(take_tiles(ContextRoutes::most_keys(units_), arena, lists));
  }
  problems_.resize(tiles_.size());
}

AttentionPlan::Tiles AttentionPlan::take_tiles(int64_t keys, Arena& arena, Arena& lists) const {
  const AttentionTileCapacity capacity = attention_tile_capacity(units_.slots, keys);
  Tiles tiles;
  tiles.offset = lists.take({capacity.offsets}, DType::I32);
  tiles.key_tile = lists.take({capacity.pairs}, DType::I32);
  tiles.full = lists.take({(capacity.pairs + 3) / 4}, DType::I32);  // one byte a pair
  tiles.sent = arena.take({attention_list_words(arena.device(), units_.slots, keys)}, DType::I32);
  return tiles;
}

void AttentionPlan::make_problem(const Context& context, int hops, const TokenPlaces& queries,
                                 const TokenPlaces& keys) {
  const Tiles& tiles = tiles_[hops];
  const std::span<uint8_t> full(static_cast<uint8_t*>(tiles.full.data()), static_cast<size_t>(tiles.key_tile.size()));
  problems_[hops] = {.scale = scale_,
                     .window = kind_.window,
                     .queries = queries,
                     .keys = keys,
                     .tiles = make_attention_tiles(queries, keys, kind_.window, tiles.offset.span<int32_t>(),
                                                   tiles.key_tile.span<int32_t>(), full)};
  send_attention_lists(context, problems_[hops], tiles.sent);
}

void AttentionPlan::make(const ModelShape& shape, const Context& context, const Batch& batch) {
  const TokenPlaces own{batch.position, batch.document};
  if (shape.cp == 1) return make_problem(context, 0, own, own);
  TESSERA_CHECK(batch.context != nullptr, "a batch of a context-parallel rank comes with its plan");
  TESSERA_CHECK_EQ(batch.context->ranks(), shape.cp, "ranks of the batch's context plan");
  TESSERA_CHECK_EQ(batch.context->slots(), shape.slots, "slots of the batch's context plan");
  const std::span<const ContextPiece> pieces = batch.context->pieces();
  if (ring_) {
    ring_->make(pieces, kind_.window);
    make_problem(context, 0, ring_->own(), ring_->own());
    for (int hops = 1; hops < units_.units; ++hops) {
      const int origin = (units_.unit + units_.units - hops) % units_.units;
      make_problem(context, hops, ring_->own(), ring_->places(origin, hops));
    }
    return;
  }
  routes_->make(pieces, kind_.window);
  const TokenPlaces keys = routes_->keys();
  const auto slots = static_cast<size_t>(units_.slots);
  make_problem(context, 0, {keys.position.first(slots), keys.document.first(slots)}, keys);
}

MicrobatchPlan::MicrobatchPlan(const ModelShape& shape, Arena& arena, Arena& lists) {
  rope_ = arena.take({shape.position == PositionKind::Rope ? shape.slots : 0, shape.head_dim}, shape.accumulation());
  for (int layer = 0; layer < shape.layers; ++layer) {
    const LayerAttention kind = shape.attention_of(layer);
    const bool known = std::any_of(kinds_.begin(), kinds_.end(), [&](const auto& plan) { return plan.kind() == kind; });
    if (!known) kinds_.emplace_back(shape, kind, arena, lists);
  }
}

void MicrobatchPlan::make(const ModelShape& shape, const Context& context, const Batch& batch) {
  if (shape.position == PositionKind::Rope) rope_table(context, batch.position, shape.rope_theta, rope_);
  for (AttentionPlan& plan : kinds_) plan.make(shape, context, batch);
}

const AttentionPlan& MicrobatchPlan::attention(const LayerAttention& kind) const {
  const auto plan = std::find_if(kinds_.begin(), kinds_.end(), [&](const auto& p) { return p.kind() == kind; });
  TESSERA_CHECK(plan != kinds_.end(), "a layer's kind of attention is among the model's");
  return *plan;
}

}  // namespace tessera
