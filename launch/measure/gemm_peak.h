// The matrix-product rate that MFU is relative to on a CPU: measured, since a data sheet does not know the clock.
#pragma once

#include <limits>

#include "tensor/context/context.h"

namespace tessera {

// FLOP/s of one square product of this size in the compute dtype, best of a few runs.
double measure_gemm(Context& context, DType compute, int64_t size);

// The best of 1024, 2048 and 4096 cubed, with the context's threads; sizes whose product would take longer than
// `longest_seconds`, by the rate found so far, are left out. Takes its memory for the duration of the call.
double measure_gemm_peak(Context& context, DType compute,
                         double longest_seconds = std::numeric_limits<double>::infinity());

}  // namespace tessera
