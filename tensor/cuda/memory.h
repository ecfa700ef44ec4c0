// Memory of the device, and host memory that it copies from and to without a stop.
#pragma once

#include <cstdint>
#include <utility>

namespace tessera::cuda {

// Zeroed device memory on the calling thread's device. Throws IoError with what is free when it does not fit.
void* allocate_device(int64_t bytes);
void free_device(void* data) noexcept;

void* allocate_pinned(int64_t bytes);
void free_pinned(void* data) noexcept;

// Owner of pinned host memory.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  explicit PinnedBuffer(int64_t bytes) : data_(bytes > 0 ? allocate_pinned(bytes) : nullptr), bytes_(bytes) {}
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
