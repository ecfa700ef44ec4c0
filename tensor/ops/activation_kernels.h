// The kernels behind activation.h on each device: signatures and promises as there, operands already checked.
#pragma once

#include "tensor/ops/activation.h"

namespace tessera::cpu {
decltype(tessera::swiglu) swiglu;
decltype(tessera::swiglu_backward) swiglu_backward;
decltype(tessera::gelu) gelu;
decltype(tessera::gelu_backward) gelu_backward;
}  // namespace tessera::cpu

namespace tessera::cuda {
decltype(tessera::swiglu) swiglu;
decltype(tessera::swiglu_backward) swiglu_backward;
decltype(tessera::gelu) gelu;
decltype(tessera::gelu_backward) gelu_backward;
}  // namespace tessera::cuda
