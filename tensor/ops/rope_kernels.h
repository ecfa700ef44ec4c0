// The kernels behind rope.h on each device: signatures and promises as there, operands already checked.
#pragma once

#include "tensor/ops/rope.h"

namespace tessera::cpu {
decltype(tessera::rope_table) rope_table;
decltype(tessera::split_heads) split_heads;
decltype(tessera::split_heads_backward) split_heads_backward;
}  // namespace tessera::cpu

namespace tessera::cuda {
decltype(tessera::rope_table) rope_table;
decltype(tessera::split_heads) split_heads;
decltype(tessera::split_heads_backward) split_heads_backward;
}  // namespace tessera::cuda
