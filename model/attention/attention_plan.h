// What attention needs to know of a microbatch, worked out once for all layers: rotations, which tiles see each other,
// and which keys and values travel.
#pragma once

#include <optional>
#include <vector>

#include "model/layers/microbatch_plan.h"
#include "model/shape/shape.h"
#include "parallel/batch.h"
#include "parallel/context/ring_routes.h"
#include "parallel/context/routes.h"
#include "tensor/memory/arena.h"
#include "tensor/ops/attention/attention.h"

namespace tessera {

// For layers with one window and one exchange.
class AttentionPlan {
 public:
  AttentionPlan(const ModelSizes& shape, const LayerAttention& kind, Arena& arena, Arena& lists);

  void make(const Context& context, const Batch& batch);

  bool serves(const LayerAttention& kind) const { return kind.window == window_ && kind.exchange == exchange_; }
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

  int64_t window_;
  ContextExchange exchange_;
  int ranks_;      // of the context-parallel group
  int64_t slots_;  // of this one
  ContextUnits units_;
  double scale_;
  std::optional<ContextRoutes> routes_;  // where keys are gathered, or all in this unit
  std::optional<RingRoutes> ring_;
  std::vector<Tiles> tiles_;                // by hops
  std::vector<AttentionProblem> problems_;  // likewise
};

// For all layers of attention of a stage, in memory that goes with the microbatch's slot.
class AttentionPlans final : public MixerPlan {
 public:
  // layers: whose kinds differ or not. arena: on the context's device. The lists are the host's, and sent to a device
  // once for all layers that one AttentionPlan serves.
  AttentionPlans(const ModelSizes& shape, std::span<const LayerAttention> layers, Arena& arena, Arena& lists);

  void make(const Context& context, const Batch& batch) override;

  // Rotations [slots, head_dim] for a layer; empty where it has none.
  ConstTensor rope(const LayerAttention& kind) const;
  const AttentionPlan& attention(const LayerAttention& kind) const;

 private:
  struct Rotations {
    double theta;
    Tensor table;  // [slots, head_dim] accumulation dtype
  };

  DType sums_;                        // the accumulation dtype
  std::vector<Rotations> rotations_;  // by theta
  std::vector<AttentionPlan> plans_;
};

}  // namespace tessera
