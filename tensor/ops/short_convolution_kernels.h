// The kernels behind short_convolution.h on each device: signatures and promises as there, operands already checked.
#pragma once

#include "tensor/ops/short_convolution.h"

namespace tessera::cpu {
decltype(tessera::short_convolution) short_convolution;
decltype(tessera::short_convolution_backward) short_convolution_backward;
}  // namespace tessera::cpu

namespace tessera::cuda {
decltype(tessera::short_convolution) short_convolution;
decltype(tessera::short_convolution_backward) short_convolution_backward;
decltype(tessera::short_convolution_backward_workspace) short_convolution_backward_workspace;
}  // namespace tessera::cuda
