#include "model/sublayers.h"

#include <string>

#include "model/attention/attention.h"
#include "model/feed_forward/mlp.h"

namespace tessera {
namespace {

std::string block_name(int layer) { return "blocks." + std::to_string(layer); }

}  // namespace

std::unique_ptr<Sublayer> make_mixer(const ModelShape& shape, int layer) {
  const LayerKind& kind = shape.layers.at(layer);
  switch (kind.mixer) {
    case MixerKind::Attention:
      return std::make_unique<Attention>(shape, kind.attention, block_name(layer) + ".attention", kind.linear);
  }
  throw InternalError("a layer's kind of mixer is unknown");
}

std::unique_ptr<Sublayer> make_feed_forward(const ModelShape& shape, int layer) {
  const LayerKind& kind = shape.layers.at(layer);
  switch (kind.feed_forward) {
    case FeedForwardKind::SwiGlu:
    case FeedForwardKind::Gelu:
      return std::make_unique<Mlp>(shape, kind.feed_forward, block_name(layer) + ".mlp", kind.linear);
  }
  throw InternalError("a layer's kind of feed-forward is unknown");
}

MicrobatchPlan make_microbatch_plan(const ModelShape& shape, std::span<const LayerKind> layers, Arena& arena,
                                    Arena& lists) {
  MicrobatchPlan plan;
  std::vector<LayerAttention> attention;
  for (const LayerKind& layer : layers) {
    if (layer.mixer == MixerKind::Attention) attention.push_back(layer.attention);
  }
  if (!attention.empty())
    plan.add(MixerKind::Attention, std::make_unique<AttentionPlans>(shape, attention, arena, lists));
  return plan;
}

}  // namespace tessera
