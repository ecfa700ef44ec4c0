// Copies between host and device memory, whichever of the two an operand lies in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "tensor/context/context.h"
#include "tensor/tensor.h"

namespace tessera {

// to = from; one size and one dtype, memory that does not overlap. Host memory may be used again when it returns: a
// copy from the device waits for what was queued before it; one to the device or on it is queued.
void copy(const Context& context, const ConstTensor& from, const Tensor& to);

// Bytes of `from` from `first` on, into host memory, beside the context's stream: for another thread than the
// context's too. Nothing that is queued may write `from`.
void copy_bytes_to_host(const Context& context, const ConstTensor& from, int64_t first, std::span<std::byte> host);

}  // namespace tessera
