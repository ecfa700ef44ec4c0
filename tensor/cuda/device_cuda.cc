#include <cuda_runtime.h>

#include "tensor/check.h"
#include "tensor/cuda/device.h"

namespace tessera::cuda {

// Of a kernel in probe_cuda.cu: an error when this build has no code for the current device.
int probe_kernel_code();

Devices find_devices() {
  int count = 0;  // stays as it is when the call fails
  const cudaError_t error = cudaGetDeviceCount(&count);
  (void)cudaGetLastError();
  if (error == cudaSuccess && count > 0) return {.count = count, .reason = {}};
  int driver = 0;
  (void)cudaDriverGetVersion(&driver);
  if (error == cudaErrorInsufficientDriver && driver == 0) return {0, "no NVIDIA driver is installed"};
  if (error == cudaErrorInsufficientDriver) {
    return {0, "the NVIDIA driver supports CUDA " + std::to_string(driver / 1000) + "." +
                   std::to_string(driver % 1000 / 10) + ", and this build needs CUDA " +
                   std::to_string(CUDART_VERSION / 1000) + ": update the driver"};
  }
  if (error == cudaErrorNoDevice || error == cudaSuccess) {
    return {0, "the NVIDIA driver finds no GPU (is CUDA_VISIBLE_DEVICES empty?)"};
  }
  return {0, std::string("CUDA cannot be used: ") + cudaGetErrorName(error) + " (" + cudaGetErrorString(error) + ")"};
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
    throw UsageError("GPU " + std::to_string(ordinal) + " cannot be used: " + cudaGetErrorName(error) + " (" +
                     cudaGetErrorString(error) + ")");
  }
  const std::string capability = std::to_string(properties.major) + "." + std::to_string(properties.minor);
  if (probe_kernel_code() != cudaSuccess) {
    (void)cudaGetLastError();
    throw UsageError("GPU " + std::to_string(ordinal) + " (" + properties.name + ") has compute capability " +
                     capability +
                     ", for which this build has no code (it has " TESSERA_CUDA_ARCHITECTURES
                     "): configure with -DCMAKE_CUDA_ARCHITECTURES=" +
                     std::to_string(properties.major) + std::to_string(properties.minor));
  }
  return {.ordinal = ordinal,
          .name = properties.name,
          .major = properties.major,
          .minor = properties.minor,
          .multiprocessors = properties.multiProcessorCount,
          .shared_memory = static_cast<int64_t>(properties.sharedMemPerBlockOptin),
          .memory = static_cast<int64_t>(properties.totalGlobalMem)};
}

void enter_device(int ordinal) {
  if (const cudaError_t error = cudaSetDevice(ordinal); error != cudaSuccess) {
    (void)cudaGetLastError();
    throw InternalError("choosing GPU " + std::to_string(ordinal) + " for another thread: " + cudaGetErrorName(error) +
                        " (" + cudaGetErrorString(error) + ")");
  }
}

}  // namespace tessera::cuda
