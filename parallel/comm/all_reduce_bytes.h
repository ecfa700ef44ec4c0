// What an all-reduce puts on the wire.
#pragma once

#include <cstdint>

#include "tensor/dtype.h"
#include "tensor/interval.h"

namespace tessera {

// Bytes that rank `rank` of `ranks` sends for a sum of `elements`: a reduce-scatter followed by an all-gather of parts
// that need not be equal (parallel/comm/traffic.h). 0 in a group of one.
inline int64_t all_reduce_bytes(int64_t elements, DType dtype, int rank, int ranks) {
  if (ranks == 1) return 0;
  return (elements + (ranks - 2) * shard({0, elements}, ranks, rank).size()) * size_of(dtype);
}

}  // namespace tessera
