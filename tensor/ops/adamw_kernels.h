// The kernels behind adamw.h on each device: signatures and promises as there, operands already checked.
#pragma once

#include "tensor/ops/adamw.h"

namespace tessera::cpu {
decltype(tessera::adamw) adamw;
}  // namespace tessera::cpu

namespace tessera::cuda {
decltype(tessera::adamw) adamw;
}  // namespace tessera::cuda
