// Where the tests of operations run: the same sources are built for the CPU, for the CUDA kernels on the grid emulator
// (tests/support/grid), and for a GPU (tests/support/gpu).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <new>
#include <vector>

#include "tensor/context/context.h"

namespace tessera::testing {

#if defined(TESSERA_TEST_CUDA)
constexpr Device kDevice = Device::Cuda;
#else
constexpr Device kDevice = Device::Cpu;
#endif

// The same options for a context on the device under test.
inline Context::Options on_device(Context::Options options) {
  options.device = kDevice;
  return options;
}

// Memory that host and device both read and write, and a wait for all that the device is doing, after which the host
// may: tests make operands there and look at them directly. On a GPU managed memory, on the emulator the host's.
#if defined(TESSERA_TEST_CUDA)
void* allocate_shared(size_t bytes);
void free_shared(void* data);
void settle();
#else
inline void* allocate_shared(size_t bytes) { return std::malloc(bytes); }
inline void free_shared(void* data) { std::free(data); }
inline void settle() {}
#endif

template <class T>
struct SharedAllocator {
  using value_type = T;

  SharedAllocator() = default;
  template <class U>
  SharedAllocator(const SharedAllocator<U>&) {}
  T* allocate(size_t count) {
    if (void* data = allocate_shared(std::max<size_t>(count * sizeof(T), 1))) return static_cast<T*>(data);
    throw std::bad_alloc();
  }
  void deallocate(T* data, size_t) { free_shared(data); }
  bool operator==(const SharedAllocator&) const { return true; }
};

template <class T>
using SharedVector = std::vector<T, SharedAllocator<T>>;

}  // namespace tessera::testing
