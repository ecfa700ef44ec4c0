#include <cuda_runtime.h>

#include <cstdio>
#include <string>

#include "tensor/check.h"
#include "tensor/cuda/memory.h"

namespace tessera::cuda {
namespace {

[[noreturn]] void refuse(int64_t bytes, const char* what, cudaError_t error) {
  std::string message =
      "cannot allocate " + std::to_string(bytes) + " bytes of " + what + ": " + cudaGetErrorString(error);
  size_t free = 0, total = 0;
  (void)cudaGetLastError();
  if (error == cudaErrorMemoryAllocation && cudaMemGetInfo(&free, &total) == cudaSuccess) {
    message += "; " + std::to_string(free) + " of the GPU's " + std::to_string(total) + " bytes are free";
  }
  throw IoError(message);
}

}  // namespace

void* allocate_device(int64_t bytes) {
  void* data = nullptr;
  cudaError_t error = cudaMalloc(&data, static_cast<size_t>(bytes));
  if (error != cudaSuccess) refuse(bytes, "GPU memory", error);
  error = cudaMemset(data, 0, static_cast<size_t>(bytes));
  if (error == cudaSuccess) error = cudaDeviceSynchronize();  // streams that do not block on the default one
  if (error != cudaSuccess) {
    cudaFree(data);
    refuse(bytes, "GPU memory", error);
  }
  return data;
}

void free_device(void* data) noexcept {
  // A failure here is that of an earlier kernel, or of a process that ends; there is nobody to tell but the user.
  if (const cudaError_t error = cudaFree(data); error != cudaSuccess && error != cudaErrorCudartUnloading) {
    std::fprintf(stderr, "freeing GPU memory: %s\n", cudaGetErrorString(error));
  }
}

void* allocate_pinned(int64_t bytes) {
  void* data = nullptr;
  const cudaError_t error = cudaMallocHost(&data, static_cast<size_t>(bytes));
  if (error != cudaSuccess) refuse(bytes, "pinned host memory", error);
  return data;
}

void free_pinned(void* data) noexcept {
  if (const cudaError_t error = cudaFreeHost(data); error != cudaSuccess && error != cudaErrorCudartUnloading) {
    std::fprintf(stderr, "freeing pinned memory: %s\n", cudaGetErrorString(error));
  }
}

}  // namespace tessera::cuda
