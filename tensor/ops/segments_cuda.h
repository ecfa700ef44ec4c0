// The lists of segments.h as kernels see them. Internal to tensor/ops.
#pragma once

#include "tensor/kernels/kernel.h"
#include "tensor/ops/segments.h"

namespace tessera::cuda {

// The header has the number of segments, and whether there are initial and final rows: what a recorded graph must not
// know beforehand.
struct SegmentView {
  const int32_t *header, *begin, *initial, *final;

  __device__ int32_t count() const { return header[0]; }
  __device__ int32_t initial_row(int32_t segment) const { return header[1] != 0 ? initial[segment] : -1; }
  __device__ int32_t final_row(int32_t segment) const { return header[2] != 0 ? final[segment] : -1; }
  // The segment that a token is in.
  __device__ int32_t segment_of(int32_t token) const {
    int32_t low = 0, high = count();
    while (high - low > 1) {
      const int32_t middle = low + (high - low) / 2;
      if (begin[middle] <= token)
        low = middle;
      else
        high = middle;
    }
    return low;
  }
};
SegmentView segment_view(const TokenSegments& segments);

}  // namespace tessera::cuda
