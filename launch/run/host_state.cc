#include "launch/run/host_state.h"

#include "tensor/context/copy.h"
#include "tensor/memory/arena.h"

namespace tessera {

HostState::HostState(const Context& context, State state) : state_(std::move(state)) {
  if (context.device() == Device::Cpu) return;
  int64_t bytes = 0;
  for (const StateSlice& slice : state_.slices) bytes += Arena::bytes(slice.data.shape(), slice.data.dtype());
  memory_ = Buffer(Device::Cpu, bytes, "a checkpoint's state on its way to the GPU");
  auto* next = static_cast<std::byte*>(memory_.data());
  for (StateSlice& slice : state_.slices) {
    there_.push_back(slice.data);
    slice.data = Tensor(next, slice.data.shape(), slice.data.dtype());
    next += Arena::bytes(slice.data.shape(), slice.data.dtype());
  }
}

void HostState::send(const Context& context) {
  for (size_t i = 0; i < there_.size(); ++i) copy(context, state_.slices[i].data, there_[i]);
  context.synchronize();
}

HostCopy host_copy(const Context& context) {
  if (context.device() == Device::Cpu) return {};
  return [&context](const ConstTensor& from, int64_t first, std::span<std::byte> host) {
    copy_bytes_to_host(context, from, first, host);
  };
}

}  // namespace tessera
