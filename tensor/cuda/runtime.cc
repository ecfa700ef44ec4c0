#include "tensor/cuda/runtime.h"

namespace tessera::cuda {

Runtime::Runtime(int ordinal)
    : device_(use_device(ordinal)), uploads_(stream_), partials_(Device::Cuda, kPartialBytes), result_(kPartialBytes) {}

}  // namespace tessera::cuda
