// Which CUDA devices this process can use, and why not more.
#pragma once

#include <array>
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
  std::string uuid = {};      // no other GPU of any host has it (as nvidia-smi -L writes it); empty: not known

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

// The lines for what can be wrong, each with what to do; CUDA's answers are given.
enum class NoDevice : uint8_t { OldDriver, NoGpu, Other };
// driver: the CUDA that it supports, as CUDA writes it (13010 is 13.1; 0: there is no driver); needed: by this build;
// error: CUDA's own words.
std::string why_no_device(NoDevice why, int driver, int needed, const std::string& error);
std::string why_not_used(int ordinal, const std::string& error);
// built_for: architectures as CMake writes them.
std::string why_no_code(const DeviceInfo& device, const std::string& built_for);

// A UUID as text; empty when all is 0.
std::string uuid_text(const std::array<uint8_t, 16>& uuid);

}  // namespace tessera::cuda
