// The kernels behind embedding.h on each device: signatures and promises as there, operands already checked.
#pragma once

#include "tensor/ops/embedding.h"

namespace tessera::cpu {
decltype(tessera::embedding) embedding;
decltype(tessera::embedding_add) embedding_add;
decltype(tessera::embedding_backward) embedding_backward;
}  // namespace tessera::cpu

namespace tessera::cuda {
decltype(tessera::embedding) embedding;
decltype(tessera::embedding_add) embedding_add;
decltype(tessera::embedding_backward) embedding_backward;
}  // namespace tessera::cuda
