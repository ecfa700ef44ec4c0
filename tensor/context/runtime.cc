#include "tensor/context/runtime.h"

#include <thread>

namespace tessera::cuda {

Runtime::Runtime(int ordinal)
    : device_(use_device(ordinal)),
      uploads_(stream_, [this](const Event& event) { wait(event); }),
      partials_(Device::Cuda, kPartialBytes, "partial sums"),
      matrix_workspace_(Device::Cuda, kMatrixWorkspaceBytes, "the matrix library's workspace"),
      result_(kResultBytes, "results of sums") {}

void Runtime::wait() {
  if (!watch_) return stream_.synchronize();
  reached_.record(stream_);
  wait(reached_);
}

void Runtime::wait(const Event& event) {
  if (!watch_) return event.synchronize();
  while (!event.done()) {
    watch_();
    std::this_thread::yield();
  }
}

}  // namespace tessera::cuda
