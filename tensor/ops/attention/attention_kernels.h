// The kernels behind attention.h on each device: signatures and promises as there, operands already checked.
#pragma once

#include "tensor/ops/attention/attention.h"

namespace tessera::cpu {
decltype(tessera::attention) attention;
decltype(tessera::attention_backward) attention_backward;
decltype(tessera::attention_workspace) attention_workspace;
}  // namespace tessera::cpu

namespace tessera::cuda {
decltype(tessera::send_attention_lists) send_attention_lists;
int64_t attention_list_words(int64_t queries, int64_t keys);
decltype(tessera::attention) attention;
decltype(tessera::attention_backward) attention_backward;
decltype(tessera::attention_workspace) attention_workspace;
}  // namespace tessera::cuda
