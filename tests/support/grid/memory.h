// The emulated device's memory, which the host may not touch.
//
// All that is allocated on the device lies in one range of addresses. It is closed to reads and writes but for kernels,
// queued copies, and what else opens it by a DeviceAccess: host code that follows a pointer into it ends the process
// with a line that says so. (Ranks that are threads share the range, so what one of them does wrong while another runs
// a kernel passes.)
#pragma once

#include <cstdint>

namespace tessera::grid {

// Device memory is open as long as one lives.
class DeviceAccess {
 public:
  DeviceAccess();
  ~DeviceAccess();
  DeviceAccess(const DeviceAccess&) = delete;
  DeviceAccess& operator=(const DeviceAccess&) = delete;
};

// Allocated and not freed.
int64_t device_bytes();

// Whether host memory is pinned: copies of other memory make the host wait.
bool is_pinned(const void* host);

// From now on no more than so many bytes are to be had; 0: as many as there are addresses for. At first what the
// environment's TESSERA_GRID_BYTES says.
void limit_device_bytes(int64_t bytes);

}  // namespace tessera::grid
