// Which CUDA devices this process can use, and why not more.
#pragma once

#include <cstdint>
#include <string>

namespace tessera::cuda {

struct DeviceInfo {
  int ordinal = 0;           // among those that the process sees
  std::string name;          // "NVIDIA H100 80GB HBM3"
  int major = 0, minor = 0;  // compute capability
  int multiprocessors = 0;
  int64_t shared_memory = 0;  // bytes that one block may have
  int64_t memory = 0;         // bytes

  // Whether its matrix units take 8-bit floats: Ada, Hopper and later.
  bool has_fp8_units() const { return major > 8 || (major == 8 && minor >= 9); }
};

// Number of devices, and when that is 0 one line that says why: no driver, no device, or what else CUDA reports.
// Loads neither cuBLAS nor NCCL, and never throws.
struct Devices {
  int count = 0;
  std::string reason;
};
Devices find_devices();

// Makes device `ordinal` the calling thread's, and says what it is. Throws UsageError when there is none, and when this
// build has no kernels for its architecture.
DeviceInfo use_device(int ordinal);

// Makes a device that is in use the calling thread's too: the choice is each thread's own, and without one CUDA takes
// device 0 and makes itself at home there, in half a gigabyte. For threads beside that of a context.
void enter_device(int ordinal);

}  // namespace tessera::cuda
