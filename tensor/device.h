// Where a tensor lies and an operation runs.
//
// Operations pick their kernels with
//   if constexpr (kHasCuda) {
//     if (context.device() == Device::Cuda) return cuda::add(context, a, b, y);
//   }
//   cpu::add(context, a, b, y);
// so that a build without CUDA links without stubs: a discarded statement needs no definition.
#pragma once

#include <cstdint>

namespace tessera {

enum class Device : uint8_t { Cpu, Cuda };

// Whether this build contains the CUDA kernels (set by cmake/TesseraCompiler.cmake).
constexpr bool kHasCuda = TESSERA_HAS_CUDA != 0;

constexpr const char* name(Device device) { return device == Device::Cpu ? "CPU" : "CUDA"; }

}  // namespace tessera
