#include "model/shape/shape.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "model/model.pb.h"
#include "model/shape/windows.h"
#include "tensor/check.h"

namespace tessera {
namespace {

void require_multiple(const char* what, int64_t value, const char* by_what, int64_t by) {
  if (by <= 0 || value % by != 0) {
    throw UsageError(fmt::format("{} = {} is not a multiple of {} = {}", what, value, by_what, by));
  }
}

}  // namespace

double ModelSizes::attention_scale() const {
  const auto dim = static_cast<double>(head_dim);
  return attention_multiplier > 0 ? attention_multiplier / dim : 1.0 / std::sqrt(dim);
}

double ModelSizes::matrix_deviation() const { return initializer_range / std::sqrt(width_ratio); }

double ModelShape::residual_deviation() const {
  return matrix_deviation() / std::sqrt(2.0 * static_cast<double>(layers.size()));
}

std::vector<AttentionKind> attention_kinds(const ModelShape& shape) {
  std::vector<AttentionKind> kinds;
  for (const LayerKind& layer : shape.layers) {
    if (layer.mixer != MixerKind::Attention) continue;
    const int64_t window = layer.attention.window;
    const auto known =
        std::find_if(kinds.begin(), kinds.end(), [&](const auto& kind) { return kind.window == window; });
    if (known == kinds.end())
      kinds.push_back({.window = window, .layers = 1});
    else
      ++known->layers;
  }
  return kinds;
}

namespace {

std::vector<LayerKind> layers_of(const ModelConfig& config, const ShapeRequest& request) {
  const bool llama = config.family() == ModelConfig::LLAMA;
  const std::vector<int64_t> windows = layer_windows(config);
  TESSERA_CHECK(request.exchanges.empty() || request.exchanges.size() == windows.size(),
                "exchanges are named for all layers or for none");
  std::vector<LayerKind> layers;
  for (size_t i = 0; i < windows.size(); ++i) {
    const bool inner = i > 0 && i + 1 < windows.size();
    layers.push_back({.mixer = MixerKind::Attention,
                      .attention = {.window = windows[i],
                                    .exchange = request.exchanges.empty() ? ContextExchange{} : request.exchanges[i],
                                    .rope_theta = llama ? config.rope_theta() : 0},
                      .feed_forward = llama ? FeedForwardKind::SwiGlu : FeedForwardKind::Gelu,
                      .linear = {.format = inner ? request.inner_products : ProductFormat::Compute,
                                 .bias = llama ? BiasKind::None : BiasKind::Bias}});
  }
  return layers;
}

}  // namespace

ModelShape model_shape(const ModelConfig& config, const ShapeRequest& request) {
  const bool llama = config.family() == ModelConfig::LLAMA;
  ModelShape shape;
  shape.norm = llama ? NormKind::Rms : NormKind::Layer;
  shape.position = llama ? PositionKind::Rope : PositionKind::Learned;
  shape.tied = config.tie_word_embeddings();
  shape.layers = layers_of(config, request);
  shape.hidden = config.hidden_size();
  shape.heads = config.num_attention_heads();
  shape.kv_heads = config.num_key_value_heads();
  shape.head_dim = config.head_dim();
  shape.ffn = config.intermediate_size();
  shape.vocab = config.vocab_size();
  shape.positions = config.max_position_embeddings();
  shape.norm_epsilon = llama ? config.rms_norm_eps() : config.layer_norm_epsilon();
  shape.initializer_range = config.initializer_range();
  if (config.parametrization() == ModelConfig::MUP) {
    shape.width_ratio = static_cast<double>(shape.hidden) / static_cast<double>(config.mup_base_width());
    shape.output_scale = config.mup_output_multiplier() / shape.width_ratio;
    shape.attention_multiplier = config.mup_attention_multiplier();
  }
  shape.tp = request.tp;
  shape.tp_rank = request.tp_rank;
  shape.cp = request.cp;
  shape.cp_rank = request.cp_rank;
  shape.slots = request.slots;
  shape.compute = request.compute;
  require_multiple("model.num_attention_heads", shape.heads, "model.num_key_value_heads", shape.kv_heads);
  require_multiple("model.num_key_value_heads", shape.kv_heads, "parallel.tp", shape.tp);
  require_multiple("model.intermediate_size", shape.ffn, "parallel.tp", shape.tp);
  require_multiple("token slots of a microbatch", shape.slots, "parallel.tp", shape.tp);
  for (const LayerKind& layer : shape.layers)
    check_exchange(layer.attention.exchange, shape.cp, shape.heads / shape.tp, shape.kv_heads / shape.tp);
  return shape;
}

ModelShape whole_shape(ModelShape shape) {
  shape.tp = shape.cp = 1;
  shape.tp_rank = shape.cp_rank = 0;
  for (LayerKind& layer : shape.layers) layer.attention.exchange = {};
  return shape;
}

}  // namespace tessera
