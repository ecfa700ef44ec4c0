// What a context on a CUDA device has besides its arenas: the device, its stream, the way for small host arrays, a
// place for results that the host waits for, and the matrix library's state.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "tensor/cuda/device.h"
#include "tensor/cuda/stream.h"
#include "tensor/cuda/uploads.h"

namespace tessera::cuda {

struct MatrixState;  // tensor/ops/gemm_cuda.cc

class Runtime {
 public:
  explicit Runtime(int ordinal);

  const DeviceInfo& device() const { return device_; }
  const Stream& stream() const { return stream_; }
  Uploads& uploads() { return uploads_; }

  // Device memory for the partial results of one reduction; the next one may overwrite it.
  static constexpr int64_t kPartialBytes = 64 << 10;
  void* partials() const { return partials_.data(); }

  // Pinned host memory for results that the host waits for.
  template <class T>
  std::span<T> result() const {
    return {static_cast<T*>(result_.data()), static_cast<size_t>(result_.bytes()) / sizeof(T)};
  }
  // Waits for what was queued and copies device memory to `to`, a part of result().
  template <class T>
  void fetch(const T* from, std::span<T> to) const {
    stream_.copy_to_host(to.data(), from, static_cast<int64_t>(to.size_bytes()));
    stream_.synchronize();
  }
  template <class T>
  T fetch(const T* from) const {
    fetch(from, result<T>().first(1));
    return result<T>()[0];
  }

  std::shared_ptr<MatrixState>& matrix_state() { return matrix_state_; }

  // Device bytes that the runtime itself holds.
  int64_t bytes() const { return uploads_.bytes() + partials_.bytes(); }

 private:
  DeviceInfo device_;
  Stream stream_;
  Uploads uploads_;
  Buffer partials_;
  PinnedBuffer result_;
  std::shared_ptr<MatrixState> matrix_state_;
};

}  // namespace tessera::cuda
