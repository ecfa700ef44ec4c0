// Where code is going to run, as far as the memory that it takes depends on it.
//
// A Context holds a device, threads and libraries; this value only names them. So what an operation, a layer or a whole
// rank will take can be stated for a machine that is not here.
#pragma once

#include "tensor/device.h"

namespace tessera {

struct Target {
  Device device = Device::Cpu;
  int threads = 1;  // of the host

  bool operator==(const Target&) const = default;
};

}  // namespace tessera
