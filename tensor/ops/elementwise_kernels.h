// The kernels behind elementwise.h on each device: signatures and promises as there, operands already checked.
#pragma once

#include "tensor/ops/elementwise.h"

namespace tessera::cpu {
decltype(tessera::add) add;
decltype(tessera::accumulate) accumulate;
decltype(tessera::cast) cast;
decltype(tessera::scale) scale;
decltype(tessera::add_bias) add_bias;
decltype(tessera::zero) zero;
}  // namespace tessera::cpu

namespace tessera::cuda {
decltype(tessera::add) add;
decltype(tessera::accumulate) accumulate;
decltype(tessera::cast) cast;
decltype(tessera::scale) scale;
decltype(tessera::add_bias) add_bias;
decltype(tessera::zero) zero;
}  // namespace tessera::cuda
