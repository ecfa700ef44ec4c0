// Memory of the device, and host memory that it copies from and to without a stop.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

namespace tessera::cuda {

// Zeroed device memory on the calling thread's device. what: that it is for, as errors say it. Throws DeviceMemoryError
// (refuse_allocation) when it does not fit.
void* allocate_device(int64_t bytes, const std::string& what);
void free_device(void* data) noexcept;

// What a device has, for errors.
struct DeviceRoom {
  int ordinal = 0;
  std::string name;
  int64_t free = 0, total = 0;  // bytes; total 0: not known
};
// Throws DeviceMemoryError: so many bytes, for what, and on which device they did not fit.
[[noreturn]] void refuse_allocation(int64_t bytes, const std::string& what, const DeviceRoom& room);

void* allocate_pinned(int64_t bytes, const std::string& what);
void free_pinned(void* data) noexcept;

// Owner of pinned host memory.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  PinnedBuffer(int64_t bytes, const std::string& what)
      : data_(bytes > 0 ? allocate_pinned(bytes, what) : nullptr), bytes_(bytes) {}
  PinnedBuffer(PinnedBuffer&& other) noexcept { *this = std::move(other); }
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~PinnedBuffer() {
    if (data_ != nullptr) free_pinned(data_);
  }

  void* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace tessera::cuda
