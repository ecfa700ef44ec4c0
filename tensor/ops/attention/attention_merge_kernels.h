// The kernels behind attention_merge.h on each device: signatures and promises as there, operands already checked.
#pragma once

#include "tensor/ops/attention/attention_merge.h"

namespace tessera::cpu {
decltype(tessera::attention_merge) attention_merge;
decltype(tessera::attention_merge_start) attention_merge_start;
}  // namespace tessera::cpu

namespace tessera::cuda {
decltype(tessera::attention_merge) attention_merge;
decltype(tessera::attention_merge_start) attention_merge_start;
}  // namespace tessera::cuda
