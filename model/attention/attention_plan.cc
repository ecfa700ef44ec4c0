#include "model/attention/attention_plan.h"

#include <algorithm>
#include <cmath>

#include "tensor/check.h"
#include "tensor/ops/rope.h"

namespace tessera {

AttentionPlan::AttentionPlan(const ModelSizes& shape, const LayerAttention& kind, Arena& arena, Arena& lists)
    : window_(kind.window),
      exchange_(kind.exchange),
      ranks_(shape.cp),
      slots_(shape.slots),
      units_(shape.exchange_shape(kind.exchange).units),
      scale_(shape.attention_scale()) {
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
                     .window = window_,
                     .queries = queries,
                     .keys = keys,
                     .tiles = make_attention_tiles(queries, keys, window_, tiles.offset.span<int32_t>(),
                                                   tiles.key_tile.span<int32_t>(), full)};
  send_attention_lists(context, problems_[hops], tiles.sent);
}

void AttentionPlan::make(const Context& context, const Batch& batch) {
  const TokenPlaces own{batch.position, batch.document};
  if (ranks_ == 1) return make_problem(context, 0, own, own);
  TESSERA_CHECK(batch.context != nullptr, "a batch of a context-parallel rank comes with its plan");
  TESSERA_CHECK_EQ(batch.context->ranks(), ranks_, "ranks of the batch's context plan");
  TESSERA_CHECK_EQ(batch.context->slots(), slots_, "slots of the batch's context plan");
  const std::span<const ContextPiece> pieces = batch.context->pieces();
  if (ring_) {
    ring_->make(pieces, window_);
    make_problem(context, 0, ring_->own(), ring_->own());
    for (int hops = 1; hops < units_.units; ++hops) {
      const int origin = (units_.unit + units_.units - hops) % units_.units;
      make_problem(context, hops, ring_->own(), ring_->places(origin, hops));
    }
    return;
  }
  routes_->make(pieces, window_);
  const TokenPlaces keys = routes_->keys();
  const auto slots = static_cast<size_t>(units_.slots);
  make_problem(context, 0, {keys.position.first(slots), keys.document.first(slots)}, keys);
}

AttentionPlans::AttentionPlans(const ModelSizes& shape, std::span<const LayerAttention> layers, Arena& arena,
                               Arena& lists)
    : sums_(shape.accumulation()) {
  for (const LayerAttention& kind : layers) {
    const auto same = [&](const Rotations& rotations) { return rotations.theta == kind.rope_theta; };
    if (kind.rope_theta > 0 && std::none_of(rotations_.begin(), rotations_.end(), same))
      rotations_.push_back({kind.rope_theta, arena.take({shape.slots, shape.head_dim}, sums_)});
  }
  for (const LayerAttention& kind : layers) {
    const auto serves = [&](const AttentionPlan& plan) { return plan.serves(kind); };
    if (std::none_of(plans_.begin(), plans_.end(), serves)) plans_.emplace_back(shape, kind, arena, lists);
  }
}

void AttentionPlans::make(const Context& context, const Batch& batch) {
  for (const Rotations& rotations : rotations_) rope_table(context, batch.position, rotations.theta, rotations.table);
  for (AttentionPlan& plan : plans_) plan.make(context, batch);
}

ConstTensor AttentionPlans::rope(const LayerAttention& kind) const {
  if (kind.rope_theta == 0) return {nullptr, {0, 0}, sums_};
  const auto found = std::find_if(rotations_.begin(), rotations_.end(),
                                  [&](const Rotations& rotations) { return rotations.theta == kind.rope_theta; });
  TESSERA_CHECK(found != rotations_.end(), "no plan was made for rotations of this base");
  return found->table;
}

const AttentionPlan& AttentionPlans::attention(const LayerAttention& kind) const {
  const auto plan = std::find_if(plans_.begin(), plans_.end(), [&](const AttentionPlan& p) { return p.serves(kind); });
  TESSERA_CHECK(plan != plans_.end(), "no plan was made for attention of this window and exchange");
  return *plan;
}

}  // namespace tessera
