// The kernels behind cross_entropy.h on each device: signatures and promises as there, operands already checked.
#pragma once

#include "tensor/ops/cross_entropy.h"

namespace tessera::cpu {
decltype(tessera::cross_entropy_maximum) cross_entropy_maximum;
decltype(tessera::cross_entropy_sums) cross_entropy_sums;
decltype(tessera::cross_entropy_loss) cross_entropy_loss;
decltype(tessera::cross_entropy_backward) cross_entropy_backward;
}  // namespace tessera::cpu

namespace tessera::cuda {
decltype(tessera::cross_entropy_maximum) cross_entropy_maximum;
decltype(tessera::cross_entropy_sums) cross_entropy_sums;
decltype(tessera::cross_entropy_loss) cross_entropy_loss;
decltype(tessera::cross_entropy_backward) cross_entropy_backward;
}  // namespace tessera::cuda
