// A run's state between a device and the files, which see host memory alone.
#pragma once

#include <vector>

#include "checkpoint/format/staging.h"
#include "parallel/state.h"
#include "tensor/context/context.h"
#include "tensor/memory/buffer.h"

namespace tessera {

// A state whose slices are host memory, to be loaded into: the state itself on the CPU, else memory as large, which is
// to be sent to the device.
class HostState {
 public:
  HostState(const Context& context, State state);

  State& state() { return state_; }
  // Copies what was loaded to where the state lies; returns when it is there.
  void send(const Context& context);

 private:
  State state_;
  std::vector<Tensor> there_;  // the slices' own memory
  Buffer memory_;
};

// How a saver takes bytes of a state on the context's device, from any thread; empty on the CPU. The context must
// outlive it.
HostCopy host_copy(const Context& context);

}  // namespace tessera
