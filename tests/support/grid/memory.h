// The emulated device's memory, which the host may not touch, and work on its streams that is not done when it is
// queued.
//
// All that is allocated on the device lies in one range of addresses. It is closed to reads and writes but for kernels,
// queued copies, and what else opens it by a DeviceAccess: host code that follows a pointer into it ends the process
// with a line that says so. (Ranks that are threads share the range, so what one of them does wrong while another runs
// a kernel passes.)
#pragma once

#include <cstdint>
#include <functional>

namespace tessera::grid {

// Device memory is open as long as one lives.
class DeviceAccess {
 public:
  DeviceAccess();
  ~DeviceAccess();
  DeviceAccess(const DeviceAccess&) = delete;
  DeviceAccess& operator=(const DeviceAccess&) = delete;
};

// Work queued on a stream (cuda::Stream::handle()) that is over when done() is true: asked by whoever waits for the
// stream or for an event recorded on it later. Everything else is done when it is queued.
void defer(void* stream, std::function<bool()> done);

// What the program's streams were asked for so far.
struct StreamCalls {
  int64_t to_device = 0, to_host = 0;  // copies
  int64_t waits = 0;                   // of the host for a stream
};
StreamCalls stream_calls();

}  // namespace tessera::grid
