// The kernels behind columns.h on each device: signatures and promises as there, operands already checked.
#pragma once

#include "tensor/ops/columns.h"

namespace tessera::cpu {
decltype(tessera::copy_columns) copy_columns;
}  // namespace tessera::cpu

namespace tessera::cuda {
decltype(tessera::copy_columns) copy_columns;
}  // namespace tessera::cuda
