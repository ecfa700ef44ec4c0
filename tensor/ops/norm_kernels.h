// The kernels behind norm.h on each device: signatures and promises as there, operands already checked.
#pragma once

#include "tensor/ops/norm.h"

namespace tessera {

// Rows of partial sums that a backward keeps at once, each of `sums` (dweight, and dbias) times hidden: on the CPU a
// few blocks of tokens for each thread; on a GPU one for each thread block.
int64_t norm_backward_partials(Target target, int64_t hidden, DType compute, int64_t sums);

}  // namespace tessera

namespace tessera::cpu {
decltype(tessera::rms_norm) rms_norm;
decltype(tessera::layer_norm) layer_norm;
decltype(tessera::rms_norm_backward) rms_norm_backward;
decltype(tessera::layer_norm_backward) layer_norm_backward;
}  // namespace tessera::cpu

namespace tessera::cuda {
decltype(tessera::rms_norm) rms_norm;
decltype(tessera::layer_norm) layer_norm;
decltype(tessera::rms_norm_backward) rms_norm_backward;
decltype(tessera::layer_norm_backward) layer_norm_backward;
}  // namespace tessera::cuda
