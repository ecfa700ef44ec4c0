#include "tests/support/grid/streams.h"

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tensor/check.h"
#include "tensor/context/graph.h"
#include "tensor/cuda/stream.h"
#include "tests/support/grid/memory.h"

namespace tessera {
namespace {

using Recorded = std::vector<std::function<void()>>;

struct StreamState {
  std::thread::id owner = std::this_thread::get_id();
  std::deque<std::function<bool()>> work;
  bool running = false;        // some of it; it may come back here
  bool ended = false;          // its Stream; what it has is still done
  std::exception_ptr failure;  // of its work, told to whoever waits for it next
  Recorded* recorded = nullptr;
};

// Every stream that has work or whose Stream lives. Guarded by the device's mutex, as they are.
std::set<StreamState*>& all_streams() {
  static std::set<StreamState*> streams;
  return streams;
}

int64_t all_done = 0;  // pieces of work, on all streams

StreamState& state_of(void* handle) { return *static_cast<StreamState*>(handle); }

// Runs what it has as far as it comes, or until `far_enough`. Whether all of it is done.
bool advance(StreamState& state, const bool& far_enough = false) {
  if (state.running) return false;
  state.running = true;
  while (!state.work.empty() && !far_enough) {
    try {
      if (!state.work.front()()) break;
    } catch (...) {
      state.failure = std::current_exception();  // what is behind it is still done
    }
    state.work.pop_front();
    ++all_done;
  }
  state.running = false;
  return state.work.empty();
}

void rethrow_failure(StreamState& state) {
  if (state.failure) std::rethrow_exception(std::exchange(state.failure, nullptr));
}

// An event's place in a stream; recorded anew it is another.
struct Mark {
  StreamState* stream;  // looked at only while it is not done: then the stream has work, and is there
  bool done = false;
};
struct EventState {
  std::shared_ptr<Mark> mark;
};

bool reached(Mark& mark) {
  if (!mark.done) advance(*mark.stream, mark.done);
  return mark.done;
}

void refuse_recording(const cuda::Stream& stream, const char* what) {
  if (stream.recording()) throw InternalError(std::string(what) + " cannot be recorded in a graph");
}

thread_local bool chosen = false;    // a device, by this thread
thread_local bool has_work = false;  // queued by this thread since it finished its streams

// Of a wait that has not come further: other ranks' hosts want the device's mutex too.
void rest() { std::this_thread::sleep_for(std::chrono::microseconds(10)); }

std::atomic<int64_t> copies_to_device, copies_to_host, waits, kernels, graphs;

}  // namespace

namespace grid {

std::recursive_mutex& device_mutex() {
  static std::recursive_mutex mutex;
  return mutex;
}

void defer(void* stream, std::function<bool()> work) {
  const std::lock_guard lock(device_mutex());
  state_of(stream).work.push_back(std::move(work));
  has_work = true;
}

void advance(void* stream) {
  const std::lock_guard lock(device_mutex());
  const auto found = all_streams().find(static_cast<StreamState*>(stream));
  if (found != all_streams().end()) tessera::advance(**found);
}

void queue(void* stream, std::function<void()> work) {
  if (Recorded* recorded = state_of(stream).recorded) return recorded->push_back(std::move(work));
  require_device();
  ++kernels;
  defer(stream, [work = std::move(work)] {
    work();
    return true;
  });
}

StreamCalls stream_calls() {
  return {
      .to_device = copies_to_device, .to_host = copies_to_host, .waits = waits, .kernels = kernels, .graphs = graphs};
}

void require_device() {
  if (!chosen) throw InternalError("this thread uses the device and has not chosen it: CUDA would take device 0");
}
void choose_device() { chosen = true; }

void finish_own_streams() noexcept {
  if (!has_work) return;
  auto last_progress = std::chrono::steady_clock::now();
  int64_t done_then = -1;
  for (;; rest()) {
    bool all = true;
    const std::lock_guard lock(device_mutex());
    for (StreamState* state : all_streams()) {
      if (state->owner == std::this_thread::get_id()) all &= tessera::advance(*state);
    }
    if (all) break;
    const auto now = std::chrono::steady_clock::now();
    if (std::exchange(done_then, all_done) != all_done) {
      last_progress = now;
    } else if (now - last_progress > std::chrono::seconds(30)) {
      constexpr char kText[] = "memory is freed, and work that is queued on the device comes to no end\n";
      [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, kText, sizeof(kText) - 1);
      std::abort();
    }
  }
  has_work = false;
}

void check_own_streams() {
  const std::lock_guard lock(device_mutex());
  for (StreamState* state : all_streams()) {
    if (state->owner == std::this_thread::get_id()) rethrow_failure(*state);
  }
}

}  // namespace grid

namespace cuda {
namespace {

// What CUDA does with host memory that is not pinned: the host waits until it has been read or written.
void copy(const Stream& stream, void* to, const void* from, int64_t bytes) {
  grid::require_device();
  auto work = [=] {
    const grid::DeviceAccess access;
    if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
  };
  if (Recorded* recorded = state_of(stream.handle()).recorded) return recorded->push_back(work);
  grid::defer(stream.handle(), [=] {
    work();
    return true;
  });
}

void wait_for(const Stream& stream) {
  for (;; rest()) {
    const std::lock_guard lock(grid::device_mutex());
    StreamState& state = state_of(stream.handle());
    const bool done = advance(state);
    rethrow_failure(state);
    if (done) return;
  }
}

}  // namespace

Stream::Stream(Priority) : handle_(new StreamState) {
  const std::lock_guard lock(grid::device_mutex());
  all_streams().insert(&state_of(handle_));
}
Stream::~Stream() {
  if (handle_ == nullptr) return;
  const std::lock_guard lock(grid::device_mutex());
  state_of(handle_).ended = true;
  std::erase_if(all_streams(), [](StreamState* state) {
    if (!state->ended || !state->work.empty()) return false;
    delete state;
    return true;
  });
}
bool Stream::recording() const { return state_of(handle_).recorded != nullptr; }
void Stream::synchronize() const {
  refuse_recording(*this, "a wait of the host");
  grid::require_device();
  ++waits;
  wait_for(*this);
}
void Stream::wait(const Event& event) const {
  refuse_recording(*this, "a wait for another stream");
  const std::lock_guard lock(grid::device_mutex());
  const std::shared_ptr<Mark> mark = static_cast<const EventState*>(event.handle())->mark;
  if (mark != nullptr && !mark->done) grid::defer(handle_, [mark] { return reached(*mark); });
}
void Stream::copy_to_device(void* to, const void* from, int64_t bytes) const {
  refuse_recording(*this, "a copy from the host");
  ++copies_to_device;
  copy(*this, to, from, bytes);
  if (bytes > 0 && !grid::is_pinned(from)) synchronize();
}
void Stream::copy_to_host(void* to, const void* from, int64_t bytes) const {
  refuse_recording(*this, "a copy to the host");
  ++copies_to_host;
  copy(*this, to, from, bytes);
  if (bytes > 0 && !grid::is_pinned(to)) synchronize();
}
void Stream::copy_on_device(void* to, const void* from, int64_t bytes) const { copy(*this, to, from, bytes); }
void Stream::zero(void* data, int64_t bytes) const {
  grid::require_device();
  auto work = [=] {
    const grid::DeviceAccess access;
    if (bytes > 0) std::memset(data, 0, static_cast<size_t>(bytes));
  };
  if (Recorded* recorded = state_of(handle_).recorded) return recorded->push_back(work);
  grid::defer(handle_, [=] {
    work();
    return true;
  });
}

Graph::Graph(const Stream& stream, FunctionRef<void()> work) {
  StreamState& state = state_of(stream.handle());
  TESSERA_CHECK(state.recorded == nullptr, "one recording of a stream at a time");
  Recorded recorded;
  struct End {
    StreamState& state;
    ~End() { state.recorded = nullptr; }
  } end{state};
  state.recorded = &recorded;
  work();
  handle_ = new std::shared_ptr<const Recorded>(std::make_shared<Recorded>(std::move(recorded)));
}
Graph::~Graph() { delete static_cast<std::shared_ptr<const Recorded>*>(handle_); }
void Graph::launch(const Stream& stream) const {
  TESSERA_CHECK(!stream.recording(), "a graph is not part of another");
  ++graphs;
  grid::defer(stream.handle(), [recorded = *static_cast<const std::shared_ptr<const Recorded>*>(handle_)] {
    for (const std::function<void()>& work : *recorded) work();
    return true;
  });
}

Event::Event() : handle_(new EventState) {}
Event::~Event() { delete static_cast<EventState*>(handle_); }
void Event::record(const Stream& stream) {
  const std::lock_guard lock(grid::device_mutex());
  const auto mark = std::make_shared<Mark>(Mark{.stream = &state_of(stream.handle())});
  grid::defer(stream.handle(), [mark] { return mark->done = true; });
  static_cast<EventState*>(handle_)->mark = mark;
}
bool Event::done() const {
  const std::lock_guard lock(grid::device_mutex());
  const auto& mark = static_cast<const EventState*>(handle_)->mark;
  if (mark == nullptr || mark->done) return true;
  StreamState& state = *mark->stream;
  const bool done = reached(*mark);
  rethrow_failure(state);
  return done;
}
void Event::synchronize() const {
  while (!done()) rest();
}

}  // namespace cuda
}  // namespace tessera
