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

double ModelShape::attention_scale() const {
  const auto dim = static_cast<double>(head_dim);
  return attention_multiplier > 0 ? attention_multiplier / dim : 1.0 / std::sqrt(dim);
}

double ModelShape::matrix_deviation() const { return initializer_range / std::sqrt(width_ratio); }

double ModelShape::residual_deviation() const {
  return matrix_deviation() / std::sqrt(2.0 * static_cast<double>(layers));
}

std::vector<AttentionKind> attention_kinds(const ModelShape& shape) {
  std::vector<AttentionKind> kinds;
  for (int64_t layer = 0; layer < shape.layers; ++layer) {
    const int64_t window = shape.attention_of(layer).window;
    const auto known =
        std::find_if(kinds.begin(), kinds.end(), [&](const auto& kind) { return kind.window == window; });
    if (known == kinds.end())
      kinds.push_back({.window = window, .layers = 1});
    else
      ++known->layers;
  }
  return kinds;
}

ModelShape model_shape(const ModelConfig& config, int tp, int tp_rank, int64_t slots, DType compute) {
  const bool llama = config.family() == ModelConfig::LLAMA;
  ModelShape shape;
  shape.norm = llama ? NormKind::Rms : NormKind::Layer;
  shape.mlp = llama ? MlpKind::SwiGlu : MlpKind::Gelu;
  shape.position = llama ? PositionKind::Rope : PositionKind::Learned;
  shape.bias = llama ? BiasKind::None : BiasKind::Bias;
  shape.tied = config.tie_word_embeddings();
  shape.layers = config.num_hidden_layers();
  shape.hidden = config.hidden_size();
  shape.heads = config.num_attention_heads();
  shape.kv_heads = config.num_key_value_heads();
  shape.head_dim = config.head_dim();
  shape.ffn = config.intermediate_size();
  shape.vocab = config.vocab_size();
  shape.positions = config.max_position_embeddings();
  shape.windows = layer_windows(config);
  shape.rope_theta = config.rope_theta();
  shape.norm_epsilon = llama ? config.rms_norm_eps() : config.layer_norm_epsilon();
  shape.initializer_range = config.initializer_range();
  if (config.parametrization() == ModelConfig::MUP) {
    shape.width_ratio = static_cast<double>(shape.hidden) / static_cast<double>(config.mup_base_width());
    shape.output_scale = config.mup_output_multiplier() / shape.width_ratio;
    shape.attention_multiplier = config.mup_attention_multiplier();
  }
  shape.tp = tp;
  shape.tp_rank = tp_rank;
  shape.slots = slots;
  shape.compute = compute;
  require_multiple("model.num_attention_heads", shape.heads, "model.num_key_value_heads", shape.kv_heads);
  require_multiple("model.num_key_value_heads", shape.kv_heads, "parallel.tp", tp);
  require_multiple("model.intermediate_size", shape.ffn, "parallel.tp", tp);
  require_multiple("token slots of a microbatch", slots, "parallel.tp", tp);
  return shape;
}

}  // namespace tessera
