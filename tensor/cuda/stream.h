// Queues of device work, and marks in them. Errors of calls that start work throw InternalError with CUDA's name for
// them; errors of earlier work come out of the wait that finds them. Destructors never throw.
#pragma once

#include <cstdint>
#include <utility>

namespace tessera::cuda {

enum class Priority : uint8_t { Normal, High };

class Event;

class Stream {
 public:
  explicit Stream(Priority priority = Priority::Normal);
  Stream(Stream&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Stream& operator=(Stream&&) = delete;
  ~Stream();

  // Whether what is queued is recorded (tensor/context/graph.h).
  bool recording() const;

  // Blocks the host until all that was queued is done.
  void synchronize() const;
  // What is queued from here on starts after the event.
  void wait(const Event& event) const;

  // Queued copies. The host memory must be pinned to be copied without blocking, and must stay until then.
  void copy_to_device(void* to, const void* from, int64_t bytes) const;
  void copy_to_host(void* to, const void* from, int64_t bytes) const;
  void copy_on_device(void* to, const void* from, int64_t bytes) const;
  void zero(void* data, int64_t bytes) const;

  void* handle() const { return handle_; }  // cudaStream_t

 private:
  void* handle_ = nullptr;
};

class Event {
 public:
  Event();
  Event(Event&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Event& operator=(Event&&) = delete;
  ~Event();

  void record(const Stream& stream);
  bool done() const;         // also when never recorded
  void synchronize() const;  // blocks the host until done

  void* handle() const { return handle_; }  // cudaEvent_t

 private:
  void* handle_ = nullptr;
};

}  // namespace tessera::cuda
