// Whether this build contains the CUDA kernels (set by cmake/TesseraCompiler.cmake).
//
// Operations pick their kernels with
//   if constexpr (kHasCuda) {
//     if (context.device() == Device::Cuda) return cuda::add(context, a, b, y);
//   }
//   cpu::add(context, a, b, y);
// so that a build without CUDA links without stubs: a discarded statement needs no definition. Only sources include
// this: whatever does not is the same in both builds, and compiled once for both where there is a compiler cache.
#pragma once

namespace tessera {

constexpr bool kHasCuda = TESSERA_HAS_CUDA != 0;

}  // namespace tessera
