// The kernels behind quantise.h on each device: signatures and promises as there, operands already checked.
#pragma once

#include "tensor/ops/quantise.h"

namespace tessera::cpu {
decltype(tessera::quantise) quantise;
}  // namespace tessera::cpu

namespace tessera::cuda {
decltype(tessera::quantise) quantise;
}  // namespace tessera::cuda
