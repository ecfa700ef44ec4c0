// What a whole model costs, whatever the layout: for MFU and for cutting it into stages.
#pragma once

#include "model/shape/shape.h"
#include "parallel/batch.h"
#include "parallel/partition.h"

namespace tessera {

// FLOPs that MFU counts for one step over all ranks: three times forward's matrix products (head included), and three
// times attention's by the actual mask. Recomputation does not count.
//   tokens  token slots of the step, over all ranks
//   pairs   visible (query, key) pairs of the step, over all samples and layers
struct StepFlops {
  double matrices = 0, attention = 0, head = 0;  // products with weights inside blocks; attention; logits
  double sum() const { return matrices + attention + head; }
};
StepFlops step_flops(const ModelShape& shape, double tokens, double pairs);

// Visible pairs of a batch's queries, summed over the model's layers.
int64_t visible_pairs(const ModelShape& shape, const Batch& batch);

// FLOPs of the parts for one microbatch of whole sequences, each one document; a block's are the mean over windows. The
// embedding's are none.
ModelCost stage_cost(const ModelShape& shape, int64_t sequence_length);

}  // namespace tessera
