// Where the gradients lie: parameters of one pipeline stage that are reduced over the same group of ranks lie side by
// side, so that a reduction takes few long messages instead of one for every norm and bias.
//
// A tied table at both ends of a pipeline is reduced in two steps, since the ends finish at different times: over this
// end's group (reduction_group) with the rest of its stage, and at last over both ends.
#pragma once

#include <cstdint>
#include <vector>

#include "parallel/parameter.h"
#include "tensor/arena.h"

namespace tessera {

// The axes that a parameter's gradient is reduced over together with its stage: its replicas but for Ends.
AxisSet reduction_group(const Parameter& parameter);

// What lay_out_gradients takes from its arena. Of the parameters only local_shape() and replicas are read.
int64_t gradient_bytes(const Parameters& parameters, DType compute);

// Sets every parameter's gradient to its place in the arena, in the accumulation dtype of `compute`. The gradients of
// one stage and group have no gaps between them; among them those of a multiple of 64 bytes come first, so that all
// matrices are aligned, each kind in the order of its blocks. The memory is as the arena gives it (see
// Reducer::begin_step).
void lay_out_gradients(const Parameters& parameters, DType compute, Arena& arena);

// A run of gradients without gaps, to be added up over one group.
struct GradientBucket {
  AxisSet group;
  Tensor gradients;  // [elements] accumulation dtype
};

// The runs that the gradients form wherever they lie, each at most max_elements long (longer runs are cut: a message
// needs scratch of its own size). Ordered by group, then address; the same on every rank of a pipeline stage that laid
// them out alike.
std::vector<GradientBucket> gradient_buckets(const Parameters& parameters, int64_t max_elements);

}  // namespace tessera
