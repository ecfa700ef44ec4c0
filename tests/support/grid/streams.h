// The emulated device's streams: work is queued, and done as late as CUDA allows.
//
// A stream runs what it has when somebody waits for it: the host, or another stream for an event. What another stream
// has is not run then unless an event asks for it, so that work which forgets to wait for its operands finds them
// unwritten, and work whose operands are overwritten too early finds that. One thread runs device work at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>

namespace tessera::grid {

// Held while device work runs, and by whoever looks at what such work changes.
std::recursive_mutex& device_mutex();

// Queues work on a stream (cuda::Stream::handle()) that is over when it returns true; until then it is tried again and
// again, and what is behind it waits.
void defer(void* stream, std::function<bool()> work);

// Runs what a stream has as far as it comes, for work that waits for another rank's: its host may be waiting elsewhere.
// The stream may have ended.
void advance(void* stream);

// Queues a kernel, a product or the like, or records it for a graph. work is kept by value.
void queue(void* stream, std::function<void()> work);

// What the program's streams were asked for so far.
struct StreamCalls {
  int64_t to_device = 0, to_host = 0;  // copies
  int64_t waits = 0;                   // of the host for a stream
  int64_t kernels = 0, graphs = 0;     // started one by one, products among them; recordings of many
};
StreamCalls stream_calls();

// --- What the rest of the emulated device has to do with them.

// Throws InternalError on a thread that has not chosen a device.
void require_device();
void choose_device();

// Runs all that the calling thread's streams have, as CUDA does before it frees memory. Ends the process when that
// comes to no end.
void finish_own_streams() noexcept;
// Throws what their work threw.
void check_own_streams();

}  // namespace tessera::grid
