// The kernels behind attention.h on each device: signatures and promises as there, operands already checked.
#pragma once

#include "tensor/ops/attention.h"

namespace tessera::cpu {
decltype(tessera::attention) attention;
decltype(tessera::attention_backward) attention_backward;
decltype(tessera::attention_workspace) attention_workspace;
}  // namespace tessera::cpu

namespace tessera::cuda {
decltype(tessera::attention) attention;
decltype(tessera::attention_backward) attention_backward;
decltype(tessera::attention_workspace) attention_workspace;
}  // namespace tessera::cuda
