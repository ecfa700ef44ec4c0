#include <cuda_runtime.h>

#include <cstring>

#include "tensor/check.h"
#include "tensor/cuda/device.h"

namespace tessera::cuda {

// Of a kernel in probe_cuda.cu: an error when this build has no code for the current device.
int probe_kernel_code();

namespace {

std::string words(cudaError_t error) {
  return std::string(cudaGetErrorName(error)) + " (" + cudaGetErrorString(error) + ")";
}

}  // namespace

Devices find_devices() {
  int count = 0;  // stays as it is when the call fails
  const cudaError_t error = cudaGetDeviceCount(&count);
  (void)cudaGetLastError();
  if (error == cudaSuccess && count > 0) return {.count = count, .reason = {}};
  int driver = 0;
  (void)cudaDriverGetVersion(&driver);
  const NoDevice why = error == cudaErrorInsufficientDriver                 ? NoDevice::OldDriver
                       : error == cudaErrorNoDevice || error == cudaSuccess ? NoDevice::NoGpu
                                                                            : NoDevice::Other;
  return {0, why_no_device(why, driver, CUDART_VERSION / 1000 * 1000, words(error))};  // minor versions get along
}

DeviceInfo use_device(int ordinal) {
  const Devices devices = find_devices();
  if (devices.count == 0) throw UsageError("no GPU: " + devices.reason);
  if (ordinal < 0 || ordinal >= devices.count) {
    throw UsageError("GPU " + std::to_string(ordinal) + " does not exist: this process sees " +
                     std::to_string(devices.count) + ", from 0 on");
  }
  cudaDeviceProp properties{};
  cudaError_t error = cudaSetDevice(ordinal);
  if (error == cudaSuccess) error = cudaGetDeviceProperties(&properties, ordinal);
  if (error != cudaSuccess) {
    (void)cudaGetLastError();
    throw UsageError(why_not_used(ordinal, words(error)));
  }
  std::array<uint8_t, 16> uuid{};
  static_assert(sizeof(properties.uuid.bytes) == uuid.size());
  std::memcpy(uuid.data(), properties.uuid.bytes, uuid.size());
  DeviceInfo info{.ordinal = ordinal,
                  .name = properties.name,
                  .major = properties.major,
                  .minor = properties.minor,
                  .multiprocessors = properties.multiProcessorCount,
                  .shared_memory = static_cast<int64_t>(properties.sharedMemPerBlockOptin),
                  .memory = static_cast<int64_t>(properties.totalGlobalMem),
                  .uuid = uuid_text(uuid)};
  const auto code = static_cast<cudaError_t>(probe_kernel_code());
  (void)cudaGetLastError();
  if (code == cudaErrorNoKernelImageForDevice || code == cudaErrorInvalidDeviceFunction ||
      code == cudaErrorInvalidKernelImage || code == cudaErrorUnsupportedPtxVersion)
    throw UsageError(why_no_code(info, TESSERA_CUDA_ARCHITECTURES));
  if (code != cudaSuccess) throw UsageError(why_not_used(ordinal, words(code)));
  return info;
}

void enter_device(int ordinal) {
  if (const cudaError_t error = cudaSetDevice(ordinal); error != cudaSuccess) {
    (void)cudaGetLastError();
    throw InternalError("choosing GPU " + std::to_string(ordinal) + " for another thread: " + words(error));
  }
}

}  // namespace tessera::cuda
