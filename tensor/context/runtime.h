// What a context on a CUDA device has besides its arenas: the device, its stream, the way for small host arrays, a
// place for results that the host waits for, and the matrix library's state.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>

#include "tensor/cuda/device.h"
#include "tensor/cuda/stream.h"
#include "tensor/memory/uploads.h"

namespace tessera::cuda {

struct MatrixState;  // tensor/ops/gemm/gemm_cuda.cc

class Runtime {
 public:
  explicit Runtime(int ordinal);

  const DeviceInfo& device() const { return device_; }
  const Stream& stream() const { return stream_; }
  // For copies that other threads ask for, beside stream().
  const Stream& side_stream() const { return side_stream_; }
  Uploads& uploads() { return uploads_; }

  // Device memory for the partial results of one reduction; the next one may overwrite it.
  static constexpr int64_t kPartialBytes = 64 << 10;
  void* partials() const { return partials_.data(); }

  // Pinned host memory for results that the host waits for.
  static constexpr int64_t kResultBytes = 64 << 10;
  template <class T>
  std::span<T> result() const {
    return {static_cast<T*>(result_.data()), static_cast<size_t>(result_.bytes()) / sizeof(T)};
  }
  // Waits for what was queued and copies device memory to `to`, a part of result().
  template <class T>
  void fetch(const T* from, std::span<T> to) {
    stream_.copy_to_host(to.data(), from, static_cast<int64_t>(to.size_bytes()));
    wait();
  }
  template <class T>
  T fetch(const T* from) {
    fetch(from, result<T>().first(1));
    return result<T>()[0];
  }

  // Blocks the host until all that is queued on the stream is done, calling the watch all the while: it throws when
  // waiting is in vain (a communicator has failed). One watch at a time; empty: none.
  void wait();
  void wait(const Event& event);  // the same for an event
  void set_watch(std::function<void()> watch) { watch_ = std::move(watch); }

  // Device memory for the matrix library; what cuBLAS advises for Hopper.
  static constexpr int64_t kMatrixWorkspaceBytes = int64_t{32} << 20;
  void* matrix_workspace() const { return matrix_workspace_.data(); }
  std::shared_ptr<MatrixState>& matrix_state() { return matrix_state_; }

  // Device bytes that the runtime itself holds.
  int64_t bytes() const { return uploads_.bytes() + partials_.bytes() + matrix_workspace_.bytes(); }

 private:
  DeviceInfo device_;
  Stream stream_;
  Stream side_stream_;
  Uploads uploads_;
  Buffer partials_, matrix_workspace_;
  PinnedBuffer result_;
  std::shared_ptr<MatrixState> matrix_state_;
  Event reached_;
  std::function<void()> watch_;
};

}  // namespace tessera::cuda
