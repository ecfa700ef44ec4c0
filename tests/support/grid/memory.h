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

// Allocated and not freed.
int64_t device_bytes();

// Work queued on a stream (cuda::Stream::handle()) that is over when done() is true: asked by whoever waits for the
// stream or for an event recorded on it later. Everything else is done when it is queued.
void defer(void* stream, std::function<bool()> done);

// Whether what is queued on a stream is recorded, and its recording. work is kept by value.
bool recording(void* stream);
void record(void* stream, std::function<void()> work);
void count_kernel();

// Runs a kernel, a product or the like that was queued on a stream, or records it.
template <class Work>
void queue(void* stream, const Work& work) {
  if (recording(stream)) return record(stream, work);
  count_kernel();
  work();
}

// What the program's streams were asked for so far.
struct StreamCalls {
  int64_t to_device = 0, to_host = 0;  // copies
  int64_t waits = 0;                   // of the host for a stream
  int64_t kernels = 0, graphs = 0;     // started one by one, products among them; recordings of many
};
StreamCalls stream_calls();

}  // namespace tessera::grid
