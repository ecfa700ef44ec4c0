// Operands of tests on a GPU lie in managed memory (tests/support/device.h).
#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>

#include "tests/support/device.h"

namespace tessera::testing {

void* allocate_shared(size_t bytes) {
  void* data = nullptr;
  return cudaMallocManaged(&data, bytes) == cudaSuccess ? data : nullptr;
}

void free_shared(void* data) { cudaFree(data); }

void settle() {
  const cudaError_t error = cudaDeviceSynchronize();
  if (error == cudaSuccess) return;
  // No later result can be trusted, and no destructor run.
  std::fprintf(stderr, "a kernel failed: %s (%s)\n", cudaGetErrorName(error), cudaGetErrorString(error));
  std::abort();
}

}  // namespace tessera::testing
