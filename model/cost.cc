#include "model/cost.h"

#include <algorithm>

#include "model/transformer.h"
#include "tensor/ops/attention/attention.h"

namespace tessera {
namespace {

// Pairs that see each other in `slots` slots of whole sequences, each one document.
double causal_pairs(double slots, double length, int64_t window) {
  const double seen = window > 0 ? std::min(static_cast<double>(window), length) : length;
  return slots * (seen - 0.5 * seen * (seen - 1) / length);
}

}  // namespace

PartCosts model_costs(const ModelShape& shape, int64_t slots) {
  ModelShape whole = whole_shape(shape);
  whole.slots = slots;
  return Transformer(whole, {.part = {.last_block = whole.blocks()}}).costs();
}

StepFlops step_flops(const ModelShape& shape, double tokens, double pairs) {
  const PartCosts token = model_costs(shape, 1);
  int64_t matrices = 0, pair_flops = 0;
  for (const Cost& block : token.blocks) {
    matrices += block.matrix_flops;
    pair_flops = std::max(pair_flops, block.pair_flops);
  }
  // The pairs are counted over all layers, so a pair must cost the same in each that attends.
  for (const Cost& block : token.blocks)
    TESSERA_CHECK(block.pair_flops == 0 || block.pair_flops == pair_flops, "layers of attention differ in their heads");
  return {.matrices = 3 * tokens * static_cast<double>(matrices),
          .attention = 3 * pairs * static_cast<double>(pair_flops),
          .head = 3 * tokens * static_cast<double>(token.head.matrix_flops)};
}

int64_t visible_pairs(const ModelShape& shape, const Batch& batch) {
  int64_t pairs = 0;
  for (const AttentionKind& kind : attention_kinds(shape))
    pairs += kind.layers * attention_pairs({batch.position, batch.document}, kind.window);
  return pairs;
}

ModelCost stage_cost(const ModelShape& shape, int64_t sequence_length) {
  const PartCosts costs = model_costs(shape, shape.slots);
  const auto slots = static_cast<double>(shape.slots), length = static_cast<double>(sequence_length);
  ModelCost cost{.head = 3 * static_cast<double>(costs.head.matrix_flops)};
  for (int layer = 0; layer < shape.blocks(); ++layer) {
    const Cost& block = costs.blocks[layer];
    const double pairs = causal_pairs(slots, length, shape.layers[layer].attention.window);
    cost.blocks.push_back(3 *
                          (static_cast<double>(block.matrix_flops) + static_cast<double>(block.pair_flops) * pairs));
  }
  return cost;
}

TableParameters table_parameters(const ModelShape& shape) {
  ModelShape untied = shape;
  untied.tied = false;
  const PartCosts costs = model_costs(untied, 1);
  return {.embedding = costs.embedding.table_parameters, .head = costs.head.table_parameters};
}

}  // namespace tessera
