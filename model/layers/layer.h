// What the layers of this folder share: where a call happens, what a layer states about itself, and how it makes its
// parameters.
//
// Every layer is a concrete class with forward, backward_input and backward_weight. It owns its Parameters; what it
// must keep from forward to backward lies in a Saved struct of views, one for each live microbatch, in an arena that
// was sized from the layer's statement.
#pragma once

#include <string>
#include <vector>

#include "model/shape/context_exchange.h"
#include "model/shape/shape.h"
#include "parallel/comm/comm.h"
#include "parallel/context/group.h"
#include "parallel/parameter.h"
#include "tensor/context/context.h"
#include "tensor/memory/arena.h"
#include "tensor/ops/attention/attention.h"

namespace tessera {

// Where a layer runs.
struct LayerRun {
  Context& context;
  Comm& tp;
  ContextGroup* cp = nullptr;  // null where all tokens are on this rank
};

// A layer's statement for one microbatch on one rank: what MFU, the balance of stages, sweeps and records read, and what
// tests compare with counters from real runs.
struct Cost {
  int64_t parameters = 0;        // elements on this rank
  int64_t table_parameters = 0;  // those of them that lie in tables over the vocabulary or the positions
  int64_t matrix_flops = 0;  // of forward's matrix products, 2 m n k; backward_input and backward_weight: the same each
  // What forward's attention takes for each (query, key) pair that sees each other.
  int64_t pair_flops = 0;
  int64_t forward_sent = 0;  // bytes sent over tp
  int64_t backward_input_sent = 0;
  int64_t backward_weight_sent = 0;
  int64_t backward_sent = 0;  // of both in a row with Overlap::On, which gathers some tensors once for both
  // Bytes sent over cp, for the worst packing. Recomputation of what attention made sends forward's again.
  ContextTraffic most_exchanged = {};

  Cost& operator+=(const Cost& other);
};
Cost operator+(Cost a, const Cost& b);

// The statements of a stage's parts, or of a whole model's.
struct PartCosts {
  Cost embedding;
  std::vector<Cost> blocks;
  Cost head;

  Cost sum() const;
};

// Bytes that one all-gather or reduce-scatter over tp sends, for a gathered tensor of `elements`.
int64_t tp_sent(const ModelSizes& shape, int64_t elements);
// Bytes that an all-reduce over tp of `elements` sends from this rank (parallel/comm/traffic.h).
int64_t tp_all_reduce_sent(const ModelSizes& shape, int64_t elements, DType dtype);

// This rank's tokens of x [slots, n].
ConstTensor own_tokens(const ModelSizes& shape, const ConstTensor& x);

// A parameter whose dim 0 is split over tp.
Parameter split_parameter(const ModelSizes& shape, std::string name, const Shape& global);
// A parameter that every tp rank holds whole.
Parameter whole_parameter(std::string name, const Shape& global);

}  // namespace tessera
