#include "parallel/device_link.h"

#include "parallel/comm_nccl.h"
#include "parallel/comm_staged.h"

namespace tessera {
namespace {

std::unique_ptr<DeviceExchange> make_exchange(Comm& world, const Context& context, DeviceTransport transport) {
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) {
      return transport == DeviceTransport::Nccl ? make_nccl_exchange(world, context)
                                                : make_staged_exchange(world, context);
    }
  }
  return nullptr;
}

}  // namespace

DeviceLink::DeviceLink(Comm& world, const Context& context, DeviceTransport transport) : world_(world) {
  world.move_device_tensors(make_exchange(world, context, transport));
}

DeviceLink::~DeviceLink() { world_.move_device_tensors(nullptr); }

}  // namespace tessera
