#include <cuda_runtime.h>

#include <cstdio>
#include <string>

#include "tensor/check.h"
#include "tensor/cuda/memory.h"
#include "tensor/cuda/stream.h"

namespace tessera::cuda {
namespace {

// The current device; what CUDA does not say of it stays empty.
DeviceRoom current_room() {
  DeviceRoom room;
  cudaDeviceProp properties{};
  size_t free = 0, total = 0;
  if (cudaGetDevice(&room.ordinal) == cudaSuccess && cudaGetDeviceProperties(&properties, room.ordinal) == cudaSuccess)
    room.name = properties.name;
  if (cudaMemGetInfo(&free, &total) == cudaSuccess) {
    room.free = static_cast<int64_t>(free);
    room.total = static_cast<int64_t>(total);
  }
  (void)cudaGetLastError();
  return room;
}

[[noreturn]] void refuse(int64_t bytes, const char* memory, const std::string& what, cudaError_t error) {
  (void)cudaGetLastError();
  throw IoError("cannot allocate " + std::to_string(bytes) + " bytes of " + memory + " for " + what + ": " +
                cudaGetErrorName(error) + " (" + cudaGetErrorString(error) + ")");
}

}  // namespace

void* allocate_device(int64_t bytes, const std::string& what) {
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, static_cast<size_t>(bytes));
  if (error == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();
    refuse_allocation(bytes, what, current_room());
  }
  if (error != cudaSuccess) refuse(bytes, "GPU memory", what, error);
  try {
    const Stream stream;  // waiting for the whole device would disturb a rank whose thread records a graph there
    stream.zero(data, bytes);
    stream.synchronize();
  } catch (...) {
    cudaFree(data);
    throw;
  }
  return data;
}

void free_device(void* data) noexcept {
  // A failure here is that of an earlier kernel, or of a process that ends; there is nobody to tell but the user.
  if (const cudaError_t error = cudaFree(data); error != cudaSuccess && error != cudaErrorCudartUnloading) {
    std::fprintf(stderr, "freeing GPU memory: %s\n", cudaGetErrorString(error));
  }
}

void* allocate_pinned(int64_t bytes, const std::string& what) {
  void* data = nullptr;
  const cudaError_t error = cudaMallocHost(&data, static_cast<size_t>(bytes));
  if (error != cudaSuccess) refuse(bytes, "pinned host memory", what, error);
  return data;
}

void free_pinned(void* data) noexcept {
  if (const cudaError_t error = cudaFreeHost(data); error != cudaSuccess && error != cudaErrorCudartUnloading) {
    std::fprintf(stderr, "freeing pinned memory: %s\n", cudaGetErrorString(error));
  }
}

}  // namespace tessera::cuda
