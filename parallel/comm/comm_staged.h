// Tensors on a device, moved through pinned host memory by the group's own exchange of host memory: over threads and
// over MPI alike, so that several ranks can share one GPU. For tests, and where there is no NCCL; sums have the bits of
// the host's (parallel/comm/comm.h).
#pragma once

#include <memory>

#include "parallel/comm/comm.h"
#include "tensor/context/context.h"

namespace tessera {

// An exchange of tensors on the device of `context`, which must outlive it, as the group must.
std::unique_ptr<DeviceExchange> make_staged_exchange(Comm& group, const Context& context);

}  // namespace tessera
