// What attention needs to know of a microbatch, worked out once for all layers: rotations, which tiles see each other,
// and which keys and values travel.
#pragma once

#include <optional>
#include <vector>

#include "model/shape/shape.h"
#include "parallel/batch.h"
#include "parallel/context/ring_routes.h"
#include "parallel/context/routes.h"
#include "tensor/memory/arena.h"
#include "tensor/ops/attention/attention.h"

namespace tessera {

// For layers of one kind: with one window and one exchange.
class AttentionPlan {
 public:
  AttentionPlan(const ModelShape& shape, const LayerAttention& kind, Arena& arena, Arena& lists);

  void make(const ModelShape& shape, const Context& context, const Batch& batch);

  const LayerAttention& kind() const { return kind_; }
  // This rank's queries against all keys that it holds or gathers; in a ring against its own.
  const AttentionProblem& problem() const { return problems_.front(); }
  // In a ring: against the block that has come that many hops.
  const AttentionProblem& block(int hops) const { return problems_[hops]; }
  const ContextRoutes& routes() const { return *routes_; }
  const RingRoutes& ring() const { return *ring_; }

 private:
  // Memory for the tiles of one problem, and for all its lists on a device.
  struct Tiles {
    Tensor offset, key_tile, full, sent;
  };
  Tiles take_tiles(int64_t keys, Arena& arena, Arena& lists) const;
  void make_problem(const Context& context, int hops, const TokenPlaces& queries, const TokenPlaces& keys);

  LayerAttention kind_;
  ContextUnits units_;
  double scale_;
  std::optional<ContextRoutes> routes_;  // where keys are gathered, or all in this unit
  std::optional<RingRoutes> ring_;
  std::vector<Tiles> tiles_;                // by hops
  std::vector<AttentionProblem> problems_;  // likewise
};

// Per microbatch, shared by all layers, in memory that goes with the microbatch's slot.
class MicrobatchPlan {
 public:
  MicrobatchPlan() = default;
  // arena: on the context's device. The lists are the host's, and sent to a device once for all layers of a kind.
  MicrobatchPlan(const ModelShape& shape, Arena& arena, Arena& lists);

  void make(const ModelShape& shape, const Context& context, const Batch& batch);

  const ConstTensor rope() const { return rope_; }  // empty when the family has learned positions
  const AttentionPlan& attention(const LayerAttention& kind) const;

 private:
  Tensor rope_;
  std::vector<AttentionPlan> kinds_;
};

}  // namespace tessera
