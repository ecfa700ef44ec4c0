#include <cuda_runtime.h>

#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "tensor/check.h"

namespace tessera::cuda {

void check_launch(int error, const char* name);
void allow_shared_memory(const void* kernel, int ordinal, int64_t bytes, const char* name);

void check_launch(int error, const char* name) {
  const auto code = static_cast<cudaError_t>(error);
  if (code == cudaSuccess) return;
  (void)cudaGetLastError();  // or whoever asks next takes it for theirs
  const std::string message = std::string("starting the kernel ") + name + ": " + cudaGetErrorName(code) + " (" +
                              cudaGetErrorString(code) + ")";
  if (code == cudaErrorMemoryAllocation) throw DeviceMemoryError(message);
  throw InternalError(message);
}

// Only ever raised: ranks that are threads share a device and its kernels, and one's smaller launch must not take from
// another what it is about to use. The call may also wait for copies under way, so launches do not repeat it.
void allow_shared_memory(const void* kernel, int ordinal, int64_t bytes, const char* name) {
  static std::mutex mutex;
  static std::map<std::pair<const void*, int>, int64_t> allowed;
  const std::lock_guard lock(mutex);
  int64_t& most = allowed[{kernel, ordinal}];
  if (bytes <= most) return;
  check_launch(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
               name);
  most = bytes;
}

}  // namespace tessera::cuda
