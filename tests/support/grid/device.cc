// The emulated device: tensor/cuda's memory, streams and device on the host. All work is done when it is queued.
#include "tensor/cuda/device.h"

#include <cstdlib>
#include <cstring>
#include <new>

#include "tensor/cuda/memory.h"
#include "tensor/cuda/stream.h"
#include "tensor/ops/gemm_cuda.h"
#include "tests/support/grid/grid.h"

namespace tessera::cuda {

void* allocate_device(int64_t bytes) {
  void* data = std::aligned_alloc(256, static_cast<size_t>((bytes + 255) / 256 * 256));
  if (data == nullptr) throw std::bad_alloc();
  return std::memset(data, 0, static_cast<size_t>(bytes));
}
void free_device(void* data) noexcept { std::free(data); }
void* allocate_pinned(int64_t bytes) { return allocate_device(bytes); }
void free_pinned(void* data) noexcept { std::free(data); }

Stream::Stream(Priority) {}
Stream::~Stream() = default;
void Stream::synchronize() const {}
void Stream::wait(const Event&) const {}
void Stream::copy_to_device(void* to, const void* from, int64_t bytes) const {
  if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
}
void Stream::copy_to_host(void* to, const void* from, int64_t bytes) const { copy_to_device(to, from, bytes); }
void Stream::copy_on_device(void* to, const void* from, int64_t bytes) const { copy_to_device(to, from, bytes); }
void Stream::zero(void* data, int64_t bytes) const {
  if (bytes > 0) std::memset(data, 0, static_cast<size_t>(bytes));
}

Event::Event() = default;
Event::~Event() = default;
void Event::record(const Stream&) {}
bool Event::done() const { return true; }
void Event::synchronize() const {}

Devices find_devices() { return {.count = 1, .reason = {}}; }

DeviceInfo use_device(int) {
  return {.name = "grid emulator",
          .major = 9,
          .minor = 0,
          .multiprocessors = 2,
          .shared_memory = grid::kSharedMemory,
          .memory = int64_t{1} << 34};
}

// Matrix products are the library's on a real device and have no source to test here; so that operations which use
// them run, these are plain loops.
void gemm(Context&, const GemmShape& shape, const ConstTensor& a, const ConstTensor& b, const ConstTensor& c,
          const GemmOptions& options, const ConstTensor& bias, GemmCall call) {
  if (call == GemmCall::PrepareOnly) return;
  const auto at = [](const ConstTensor& x, Transpose stored, int64_t row, int64_t column) {
    return stored == Transpose::No ? row * x.dim(1) + column : column * x.dim(1) + row;
  };
  dispatch_float(a.dtype(), [&]<class T>(T) {
    dispatch_float(c.dtype(), [&]<class C>(C) {
      C* to = static_cast<C*>(const_cast<void*>(c.data()));
      for (int64_t i = 0; i < shape.m; ++i) {
        for (int64_t j = 0; j < shape.n; ++j) {
          Acc<T> sum = options.c == Write::Accumulate ? static_cast<Acc<T>>(to[i * shape.n + j])
                       : bias.rank() == 1             ? static_cast<Acc<T>>(bias.as<T>()[j])
                                                      : Acc<T>(0);
          for (int64_t l = 0; l < shape.k; ++l) {
            sum += static_cast<Acc<T>>(a.as<T>()[at(a, options.a, i, l)]) *
                   static_cast<Acc<T>>(b.as<T>()[at(b, options.b, l, j)]);
          }
          to[i * shape.n + j] = round_to<C>(sum);
        }
      }
    });
  });
}

}  // namespace tessera::cuda
