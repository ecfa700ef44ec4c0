#include "parallel/comm/device_link.h"

#include "parallel/comm/comm_nccl.h"
#include "parallel/comm/comm_rank_order.h"
#include "parallel/comm/comm_staged.h"
#include "tensor/has_cuda.h"

namespace tessera {
namespace {

std::unique_ptr<DeviceExchange> make_exchange(Comm& world, const Context& context, DeviceTransport transport,
                                              DeviceSums sums, double deadline_seconds) {
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) {
      if (transport == DeviceTransport::Staged) return make_staged_exchange(world, context);
      std::unique_ptr<DeviceExchange> nccl = make_nccl_exchange(world, context, deadline_seconds);
      return sums == DeviceSums::Fast ? std::move(nccl) : make_rank_order_exchange(std::move(nccl), world, context);
    }
  }
  return nullptr;
}

}  // namespace

DeviceLink::DeviceLink(Comm& world, const Context& context, DeviceTransport transport, DeviceSums sums,
                       double deadline_seconds)
    : world_(world) {
  world.move_device_tensors(make_exchange(world, context, transport, sums, deadline_seconds));
  if (context.device() == Device::Cuda && transport == DeviceTransport::Nccl && sums == DeviceSums::RankOrder)
    device_bytes_ = kRankOrderBytes;
}

DeviceLink::~DeviceLink() { world_.move_device_tensors(nullptr); }

}  // namespace tessera
