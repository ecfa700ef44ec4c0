// The kernels behind reduce.h on each device: signatures and promises as there, operands already checked.
#pragma once

#include "tensor/ops/reduce.h"

namespace tessera::cpu {
decltype(tessera::sum_of_squares) sum_of_squares;
decltype(tessera::sum_parts) sum_parts;
decltype(tessera::all_finite) all_finite;
decltype(tessera::add_column_sums) add_column_sums;
}  // namespace tessera::cpu

namespace tessera::cuda {
decltype(tessera::sum_of_squares) sum_of_squares;
decltype(tessera::sum_parts) sum_parts;
decltype(tessera::all_finite) all_finite;
decltype(tessera::add_column_sums) add_column_sums;
}  // namespace tessera::cuda
