#include "tensor/cuda/device.h"

#include <algorithm>

namespace tessera::cuda {
namespace {

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

}  // namespace

std::string why_no_device(NoDevice why, int driver, int needed, const std::string& error) {
  switch (why) {
    case NoDevice::OldDriver:
      if (driver == 0) return "no NVIDIA driver is installed";
      return "the NVIDIA driver supports CUDA " + version_text(driver) + ", and this build needs CUDA " +
             version_text(needed) + ": update the driver";
    case NoDevice::NoGpu:
      return "the NVIDIA driver finds no GPU (is CUDA_VISIBLE_DEVICES empty?)";
    case NoDevice::Other:
      break;
  }
  return "CUDA cannot be used: " + error + "; nvidia-smi says in which state driver and GPUs are";
}

std::string why_not_used(int ordinal, const std::string& error) {
  return "GPU " + std::to_string(ordinal) + " cannot be used: " + error +
         "; nvidia-smi says who uses it and in which state it is";
}

std::string why_no_code(const DeviceInfo& device, const std::string& built_for) {
  const std::string major = std::to_string(device.major), minor = std::to_string(device.minor);
  return "GPU " + std::to_string(device.ordinal) + " (" + device.name + ") has compute capability " + major + "." +
         minor + ", for which this build has no code (it has " + built_for +
         "): configure with -DCMAKE_CUDA_ARCHITECTURES=" + major + minor;
}

std::string uuid_text(const std::array<uint8_t, 16>& uuid) {
  if (std::all_of(uuid.begin(), uuid.end(), [](uint8_t byte) { return byte == 0; })) return {};
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text = "GPU";
  for (size_t i = 0; i < uuid.size(); ++i) {
    if (i == 0 || i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += kDigits[uuid[i] >> 4];
    text += kDigits[uuid[i] & 15];
  }
  return text;
}

}  // namespace tessera::cuda
