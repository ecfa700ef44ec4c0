// What operations check about their segments, and how these are sent. Internal to tensor/ops.
#pragma once

#include "tensor/ops/segments.h"

namespace tessera {

// Throws InternalError, naming the operation, unless the segments cover `tokens` and were sent where they must be.
void check_segments(const Context& context, const TokenSegments& segments, int64_t tokens, const char* what);

// The same unless `rows` names rows below `most` alone.
void check_segment_rows(std::span<const int32_t> rows, int64_t segments, int64_t most, const char* what);

// Rows of a tensor whose first dim they are; none when it is empty.
inline int64_t row_count(const ConstTensor& x) { return x.data() == nullptr ? 0 : x.dim(0); }

}  // namespace tessera

namespace tessera::cuda {
decltype(tessera::send_segments) send_segments;
int64_t segment_words(int64_t tokens);
}  // namespace tessera::cuda
