// What an operation needs besides its operands, and the first argument of every one: device, threads, scratch memory
// and the matrix library's state. One context a rank; not shared between threads.
#pragma once

#include <cstdint>
#include <memory>

#include "tensor/context/target.h"
#include "tensor/memory/arena.h"

namespace tessera {

class MatrixLibrary;  // tensor/context/matrix_library.h
namespace cuda {
class Runtime;  // tensor/context/runtime.h
}

class Context {
 public:
  struct Options {
    Device device = Device::Cpu;
    int threads = 1;
    int64_t workspace_bytes = 0;  // capacity of workspace()
    int cuda_device = 0;          // which of the process's GPUs, when device is Cuda
  };

  // Must be made on the thread that will use it: the matrix library's thread count and the current GPU are set for the
  // calling thread. Throws UsageError with the reason when the device cannot be used.
  explicit Context(const Options& options);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  Device device() const { return device_; }
  int threads() const { return threads_; }
  // What statements of bytes need of a context.
  Target target() const { return {device_, threads_}; }

  // Scratch as a stack: open an ArenaScope first. Every operation that takes from it states how much in its header.
  Arena& workspace() { return workspace_; }
  const Arena& workspace() const { return workspace_; }

  // Gives the workspace another capacity; nothing may be taken from it at that moment.
  void resize_workspace(int64_t bytes);

  MatrixLibrary& matrix_library() { return *matrix_library_; }
  const MatrixLibrary& matrix_library() const { return *matrix_library_; }

  // The GPU's stream and the like; only on Device::Cuda. Operations queue work there and return: the host waits by
  // synchronize().
  cuda::Runtime& cuda() const { return *cuda_; }
  // Blocks until all operations so far are done. Nothing to wait for on the CPU.
  void synchronize() const;

  // Bytes on the device that belong to no arena: the matrix library's scratch, and on a GPU the runtime's.
  int64_t library_bytes() const;

  // FLOPs of the matrix products so far (gemm only, 2 m n k each): what layers' statements are compared with.
  int64_t matrix_flops() const { return matrix_flops_; }
  void count_matrix_flops(int64_t flops) { matrix_flops_ += flops; }

 private:
  Device device_;
  int threads_;
  std::shared_ptr<cuda::Runtime> cuda_;  // shared only to be destroyed without its definition, in builds without CUDA
  Arena workspace_;
  int64_t matrix_flops_ = 0;
  std::unique_ptr<MatrixLibrary> matrix_library_;
};

}  // namespace tessera
