// A kernel of no work: whether this build has code for a GPU is asked of it (device_cuda.cc).
#include <cuda_runtime.h>

namespace tessera::cuda {
namespace {

__global__ void nothing() {}

}  // namespace

int probe_kernel_code();
int probe_kernel_code() {
  cudaFuncAttributes attributes;
  return cudaFuncGetAttributes(&attributes, nothing);
}

}  // namespace tessera::cuda
