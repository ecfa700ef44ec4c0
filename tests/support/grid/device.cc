// The emulated device: tensor/cuda's memory, streams and device on the host. Work is done when it is queued, but for
// what was deferred (memory.h).
#include "tensor/cuda/device.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "tensor/check.h"
#include "tensor/context.h"
#include "tensor/cuda/graph.h"
#include "tensor/cuda/memory.h"
#include "tensor/cuda/runtime.h"
#include "tensor/cuda/stream.h"
#include "tests/support/grid/grid.h"
#include "tests/support/grid/memory.h"

namespace tessera {
namespace {

struct DeviceHeap {
  static constexpr size_t kBytes = size_t{4} << 30;

  DeviceHeap() {
    void* range = mmap(nullptr, kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    TESSERA_CHECK(range != MAP_FAILED, "addresses for the emulated device's memory");
    base = static_cast<char*>(range);
    free[0] = kBytes;
    struct sigaction action {};
    action.sa_sigaction = [](int, siginfo_t* info, void*) { heap().explain(info->si_addr); };
    action.sa_flags = SA_SIGINFO | SA_RESETHAND | SA_ONSTACK;
    sigaction(SIGSEGV, &action, nullptr);
  }

  static DeviceHeap& heap() {
    static DeviceHeap instance;
    return instance;
  }

  // The fault comes again when the handler returns, and then ends the process.
  void explain(const void* address) const {
    const char* at = static_cast<const char*>(address);
    if (at < base || at >= base + kBytes) return;
    constexpr char kText[] = "host code touches device memory\n";
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, kText, sizeof(kText) - 1);
  }

  void* allocate(size_t bytes) {
    constexpr size_t kPage = 4096;
    const size_t need = (bytes + kPage - 1) / kPage * kPage + kPage;  // and a page between it and the next
    const std::lock_guard lock(mutex);
    for (auto& [begin, size] : free) {
      if (size < need) continue;
      const size_t at = begin, rest = size - need;
      free.erase(at);
      if (rest > 0) free[at + need] = rest;
      taken[at] = {need, bytes};
      held += bytes;
      return base + at;
    }
    throw IoError("the emulated device has no " + std::to_string(bytes) + " bytes left");
  }

  void release(void* data) {
    const std::lock_guard lock(mutex);
    const auto found = taken.find(static_cast<size_t>(static_cast<char*>(data) - base));
    if (found == taken.end()) std::abort();
    held -= found->second.asked;
    madvise(data, found->second.size, MADV_DONTNEED);  // zeros again
    auto place = free.emplace(found->first, found->second.size).first;
    taken.erase(found);
    const auto join = [&](auto first, auto second) {
      if (first->first + first->second != second->first) return false;
      first->second += second->second;
      free.erase(second);
      return true;
    };
    if (const auto next = std::next(place); next != free.end()) join(place, next);
    if (place != free.begin()) join(std::prev(place), place);
  }

  void open(bool more) {
    const std::lock_guard lock(mutex);
    accesses += more ? 1 : -1;
    if (accesses == (more ? 1 : 0)) mprotect(base, kBytes, more ? PROT_READ | PROT_WRITE : PROT_NONE);
  }

  std::mutex mutex;
  char* base = nullptr;
  int accesses = 0;
  size_t held = 0;  // as asked for
  struct Piece {
    size_t size, asked;
  };
  std::map<size_t, size_t> free;  // begin and size
  std::map<size_t, Piece> taken;  // begin
};

struct StreamState {
  std::mutex mutex;
  std::deque<std::function<bool()>> deferred;
  std::vector<std::function<void()>>* recorded = nullptr;

  bool done() {
    const std::lock_guard lock(mutex);
    while (!deferred.empty() && deferred.front()()) deferred.pop_front();  // one after another
    return deferred.empty();
  }
};

thread_local bool chosen = false;  // a device, by this thread

void require_device() {
  if (!chosen) throw InternalError("this thread uses the device and has not chosen it: CUDA would take device 0");
}

std::atomic<int64_t> copies_to_device, copies_to_host, waits, kernels, graphs;

StreamState& state_of(void* handle) { return *static_cast<StreamState*>(handle); }

using Recorded = std::vector<std::function<void()>>;

void refuse_recording(const cuda::Stream& stream, const char* what) {
  if (stream.recording()) throw InternalError(std::string(what) + " cannot be recorded in a graph");
}

}  // namespace

namespace grid {

DeviceAccess::DeviceAccess() { DeviceHeap::heap().open(true); }
DeviceAccess::~DeviceAccess() { DeviceHeap::heap().open(false); }

int64_t device_bytes() {
  DeviceHeap& heap = DeviceHeap::heap();
  const std::lock_guard lock(heap.mutex);
  return static_cast<int64_t>(heap.held);
}

void defer(void* stream, std::function<bool()> done) {
  StreamState& state = state_of(stream);
  const std::lock_guard lock(state.mutex);
  state.deferred.push_back(std::move(done));
}

StreamCalls stream_calls() {
  return {
      .to_device = copies_to_device, .to_host = copies_to_host, .waits = waits, .kernels = kernels, .graphs = graphs};
}

bool recording(void* stream) { return state_of(stream).recorded != nullptr; }
void record(void* stream, std::function<void()> work) { state_of(stream).recorded->push_back(std::move(work)); }
void count_kernel() {
  require_device();
  ++kernels;
}

}  // namespace grid

namespace cuda {

void* allocate_device(int64_t bytes) {
  require_device();
  return DeviceHeap::heap().allocate(static_cast<size_t>(bytes));
}
void free_device(void* data) noexcept { DeviceHeap::heap().release(data); }
void* allocate_pinned(int64_t bytes) {
  void* data = std::aligned_alloc(256, static_cast<size_t>((bytes + 255) / 256 * 256));
  if (data == nullptr) throw std::bad_alloc();
  return data;
}
void free_pinned(void* data) noexcept { std::free(data); }

Stream::Stream(Priority) : handle_(new StreamState) {}
Stream::~Stream() { delete static_cast<StreamState*>(handle_); }
bool Stream::recording() const { return grid::recording(handle_); }
void Stream::synchronize() const {
  refuse_recording(*this, "a wait of the host");
  require_device();
  ++waits;
  while (!state_of(handle_).done()) std::this_thread::yield();
}
void Stream::wait(const Event& event) const {
  refuse_recording(*this, "a wait for another stream");
  event.synchronize();
}
void Stream::copy_to_device(void* to, const void* from, int64_t bytes) const {
  refuse_recording(*this, "a copy from the host");
  ++copies_to_device;
  copy_on_device(to, from, bytes);
}
void Stream::copy_to_host(void* to, const void* from, int64_t bytes) const {
  refuse_recording(*this, "a copy to the host");
  ++copies_to_host;
  copy_on_device(to, from, bytes);
}
void Stream::copy_on_device(void* to, const void* from, int64_t bytes) const {
  require_device();
  if (recording()) return grid::record(handle_, [=] { std::memcpy(to, from, static_cast<size_t>(bytes)); });
  const grid::DeviceAccess access;
  if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
}
void Stream::zero(void* data, int64_t bytes) const {
  require_device();
  if (recording()) return grid::record(handle_, [=] { std::memset(data, 0, static_cast<size_t>(bytes)); });
  const grid::DeviceAccess access;
  if (bytes > 0) std::memset(data, 0, static_cast<size_t>(bytes));
}

Graph::Graph(const Stream& stream, FunctionRef<void()> work) {
  StreamState& state = state_of(stream.handle());
  TESSERA_CHECK(state.recorded == nullptr, "one recording of a stream at a time");
  auto recorded = std::make_unique<Recorded>();
  struct End {
    StreamState& state;
    ~End() { state.recorded = nullptr; }
  } end{state};
  state.recorded = recorded.get();
  work();
  handle_ = recorded.release();
}
Graph::~Graph() { delete static_cast<Recorded*>(handle_); }
void Graph::launch(const Stream& stream) const {
  TESSERA_CHECK(!stream.recording(), "a graph is not part of another");
  ++graphs;
  const grid::DeviceAccess access;  // for copies
  for (const std::function<void()>& work : *static_cast<const Recorded*>(handle_)) work();
}

// An event's handle is the stream that it was recorded on, and everything deferred there by now must be done: more than
// by then, which only waits longer.
Event::Event() = default;
Event::~Event() = default;
void Event::record(const Stream& stream) { handle_ = stream.handle(); }
bool Event::done() const { return handle_ == nullptr || state_of(handle_).done(); }
void Event::synchronize() const {
  while (!done()) std::this_thread::yield();
}

Devices find_devices() { return {.count = 1, .reason = {}}; }

void enter_device(int) { chosen = true; }

DeviceInfo use_device(int) {
  chosen = true;
  return {.name = "grid emulator",
          .major = 9,
          .minor = 0,
          .multiprocessors = 2,
          .shared_memory = grid::kSharedMemory,
          .memory = int64_t{1} << 34};
}

}  // namespace cuda
}  // namespace tessera
