// The arithmetic of a reduction over ranks, shared by all backends so that they agree bitwise.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "tensor/dtype.h"

namespace tessera {

enum class Reduction : uint8_t { Sum, Max };

// out[i] = ((x_0[i] + x_1[i]) + x_2[i]) + ..., x_r = parts[r] being rank r's elements, in the accumulation dtype,
// rounded once; or their maximum (NaN when any is NaN). out may be one of the parts, but not overlap one otherwise.
// F64, F32, BF16, I32 and U32 (integers wrap around); throws InternalError for other dtypes.
void reduce_in_rank_order(std::span<const std::byte* const> parts, std::byte* out, int64_t count, DType dtype,
                          Reduction reduction);

}  // namespace tessera
