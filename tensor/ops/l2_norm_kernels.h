// The kernels behind l2_norm.h on each device: signatures and promises as there, operands already checked.
#pragma once

#include "tensor/ops/l2_norm.h"

namespace tessera::cpu {
decltype(tessera::l2_norm_heads) l2_norm_heads;
decltype(tessera::l2_norm_heads_backward) l2_norm_heads_backward;
decltype(tessera::split_columns) split_columns;
decltype(tessera::split_columns_backward) split_columns_backward;
}  // namespace tessera::cpu

namespace tessera::cuda {
decltype(tessera::l2_norm_heads) l2_norm_heads;
decltype(tessera::l2_norm_heads_backward) l2_norm_heads_backward;
decltype(tessera::split_columns) split_columns;
decltype(tessera::split_columns_backward) split_columns_backward;
}  // namespace tessera::cuda
