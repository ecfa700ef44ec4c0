// The kernels behind gated_norm.h on each device: signatures and promises as there, operands already checked.
#pragma once

#include "tensor/ops/gated_norm.h"

namespace tessera {

// Rows of partial sums that backward keeps at once.
inline int64_t gated_norm_partials(const Target& target) {
  constexpr int64_t kBlocks = 512;  // of a GPU: a few for each multiprocessor, the same on all
  return target.device == Device::Cpu ? 2 * target.threads : kBlocks;
}

}  // namespace tessera

namespace tessera::cpu {
decltype(tessera::gated_rms_norm) gated_rms_norm;
decltype(tessera::gated_rms_norm_backward) gated_rms_norm_backward;
}  // namespace tessera::cpu

namespace tessera::cuda {
decltype(tessera::gated_rms_norm) gated_rms_norm;
decltype(tessera::gated_rms_norm_backward) gated_rms_norm_backward;
}  // namespace tessera::cuda
