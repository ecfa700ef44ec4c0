// Owner of one block of memory.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "tensor/tensor.h"

namespace tessera {

// Page-aligned zeroed memory. On the host it is backed by huge pages where the system has them, and pages are touched
// on first use, so that memory that is never used costs nothing; on the device it is all there. Move-only.
class Buffer {
 public:
  Buffer() = default;
  // what: that it is for, as errors say it. Throws IoError with that and the size when the system refuses, of a
  // device's memory a DeviceMemoryError.
  Buffer(Device device, int64_t bytes, const std::string& what = "a buffer");
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(device_, other.device_);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer();

  void* data() const { return data_; }
  int64_t bytes() const { return bytes_; }
  Device device() const { return device_; }

 private:
  void* data_ = nullptr;
  int64_t bytes_ = 0;
  Device device_ = Device::Cpu;
};

}  // namespace tessera
