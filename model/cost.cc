#include "model/cost.h"

#include <algorithm>

#include "tensor/ops/attention/attention.h"

namespace tessera {
namespace {

// 2 m n k of forward's products with weights, for one token.
double block_flops(const ModelShape& shape) {
  const int64_t attention = (2 * shape.heads + 2 * shape.kv_heads) * shape.head_dim;
  const int64_t mlp = (shape.mlp == MlpKind::SwiGlu ? 3 : 2) * shape.ffn;
  return 2.0 * static_cast<double>(shape.hidden * (attention + mlp));
}

double head_flops(const ModelShape& shape) { return 2.0 * static_cast<double>(shape.hidden * shape.vocab); }

double attention_flops(const ModelShape& shape, double pairs) {
  return static_cast<double>(attention_forward_flops(1, shape.head_dim)) * pairs * static_cast<double>(shape.heads);
}

}  // namespace

StepFlops step_flops(const ModelShape& shape, double tokens, double pairs) {
  const auto layers = static_cast<double>(shape.layers);
  return {.matrices = 3 * tokens * layers * block_flops(shape),
          .attention = 3 * attention_flops(shape, pairs),
          .head = 3 * tokens * head_flops(shape)};
}

int64_t visible_pairs(const ModelShape& shape, const Batch& batch) {
  int64_t pairs = 0;
  for (const AttentionKind& kind : attention_kinds(shape))
    pairs += kind.layers * attention_pairs({batch.position, batch.document}, kind.window);
  return pairs;
}

ModelCost stage_cost(const ModelShape& shape, int64_t sequence_length) {
  const auto slots = static_cast<double>(shape.slots);
  const auto length = static_cast<double>(sequence_length);
  double pairs = 0;  // of a block
  for (const AttentionKind& kind : attention_kinds(shape)) {
    const double window = kind.window > 0 ? std::min(static_cast<double>(kind.window), length) : length;
    pairs += slots * (window - 0.5 * window * (window - 1) / length) * static_cast<double>(kind.layers) /
             static_cast<double>(shape.layers);
  }
  return {.embedding = 0,
          .block = 3 * (slots * block_flops(shape) + attention_flops(shape, pairs)),
          .head = 3 * slots * head_flops(shape)};
}

}  // namespace tessera
