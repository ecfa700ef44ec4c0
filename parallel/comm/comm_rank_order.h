// Sums over ranks on a device with the bits of the host's, whatever moves the bytes: NCCL adds in an order and an
// arithmetic of its own (parallel/comm/comm_nccl.h), this exchange in rank order, in the accumulation dtype, rounded once.
//
// The parts of a sum travel whole, by another exchange, and a kernel adds them up: a reduce-scatter is an all-to-all
// and sends the same bytes, an all-reduce is an all-gather and sends size/2 times as many. Nothing runs beside compute:
// a started sum is over, on the context's stream, when the call returns. This is the bit-exact path, for comparing
// layouts, transports and devices; counted bytes (parallel/comm/traffic.h) are those of the sums that were asked for.
#pragma once

#include <cstdint>
#include <memory>

#include "parallel/comm/comm.h"
#include "tensor/context/context.h"

namespace tessera {

// Memory of the device that the exchanges of all groups take together.
constexpr int64_t kRankOrderBytes = int64_t{16} << 20;

// An exchange that makes the sums of F64, F32 and BF16 itself and leaves the rest to `exchange`, which moves tensors of `group` on the device of `context`.
// Both must outlive it.
std::unique_ptr<DeviceExchange> make_rank_order_exchange(std::unique_ptr<DeviceExchange> exchange, Comm& group,
                                                         const Context& context);

}  // namespace tessera
