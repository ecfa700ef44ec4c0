// Where a tensor lies and an operation runs.
#pragma once

#include <cstdint>

namespace tessera {

enum class Device : uint8_t { Cpu, Cuda };

constexpr const char* name(Device device) { return device == Device::Cpu ? "CPU" : "CUDA"; }

}  // namespace tessera
