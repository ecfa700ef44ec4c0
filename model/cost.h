// What a whole model costs, whatever the layout: read from what its layers state, for MFU, for records and sweeps, and
// for cutting the model into stages.
#pragma once

#include "model/layers/layer.h"
#include "parallel/batch.h"
#include "parallel/partition.h"

namespace tessera {

// The statements of all layers with nothing split, for a microbatch of `slots` token slots.
PartCosts model_costs(const ModelShape& shape, int64_t slots);

// FLOPs that MFU counts for one step over all ranks: three times forward's matrix products (head included), and three
// times attention's by the actual mask. Recomputation does not count.
//   tokens  token slots of the step, over all ranks
//   pairs   visible (query, key) pairs of the step, over all samples and layers
struct StepFlops {
  double matrices = 0, attention = 0, head = 0;  // products with weights inside blocks; attention; logits
  double sum() const { return matrices + attention + head; }
};
StepFlops step_flops(const ModelShape& shape, double tokens, double pairs);

// Visible pairs of a batch's queries, summed over the model's layers of attention.
int64_t visible_pairs(const ModelShape& shape, const Batch& batch);

// FLOPs of the parts for one microbatch of whole sequences, each one document, forward and backward together. The
// embedding's are none.
ModelCost stage_cost(const ModelShape& shape, int64_t sequence_length);

// Elements of the tables over the vocabulary and the positions. The head's are counted as if it had a table of its own;
// a tied model's head reads the embedding's.
struct TableParameters {
  int64_t embedding = 0, head = 0;
};
TableParameters table_parameters(const ModelShape& shape);

}  // namespace tessera
