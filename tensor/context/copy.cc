#include "tensor/context/copy.h"

#include <cstring>

#include "tensor/context/runtime.h"
#include "tensor/has_cuda.h"

namespace tessera {
namespace {

const std::byte* bytes_of(const ConstTensor& x) { return static_cast<const std::byte*>(x.data()); }

// A copy to memory that is not pinned makes the host wait inside CUDA, where nobody looks whether the wait is in vain
// (cuda::Runtime::wait): little is copied through pinned memory, and much when all that is queued is done.
void copy_to_host(cuda::Runtime& cuda, const std::byte* from, std::byte* to, int64_t bytes) {
  if (bytes <= cuda::Runtime::kResultBytes) {
    const std::span<std::byte> result = cuda.result<std::byte>().first(static_cast<size_t>(bytes));
    cuda.fetch(from, result);
    std::memcpy(to, result.data(), result.size());
    return;
  }
  cuda.wait();
  cuda.stream().copy_to_host(to, from, bytes);
  cuda.wait();
}

}  // namespace

void copy(const Context& context, const ConstTensor& from, const Tensor& to) {
  TESSERA_CHECK_EQ(from.size(), to.size(), "a copy has the size of what is copied");
  TESSERA_CHECK(from.dtype() == to.dtype(), "a copy has the dtype of what is copied");
  if (from.size() == 0) return;
  if constexpr (kHasCuda) {
    if (from.device() == Device::Cuda || to.device() == Device::Cuda) {
      TESSERA_CHECK(context.device() == Device::Cuda, "device memory is copied by a context on a device");
      const cuda::Stream& stream = context.cuda().stream();
      if (from.device() == to.device()) return stream.copy_on_device(to.data(), from.data(), from.bytes());
      if (to.device() == Device::Cuda) {
        const std::span<const std::byte> bytes(bytes_of(from), static_cast<size_t>(from.bytes()));
        return context.cuda().uploads().copy_to(static_cast<std::byte*>(to.data()), bytes);
      }
      return copy_to_host(context.cuda(), bytes_of(from), static_cast<std::byte*>(to.data()), from.bytes());
    }
  }
  std::memcpy(to.data(), from.data(), static_cast<size_t>(from.bytes()));
}

void copy_bytes_to_host(const Context& context, const ConstTensor& from, int64_t first, std::span<std::byte> host) {
  TESSERA_CHECK(first >= 0 && first + static_cast<int64_t>(host.size()) <= from.bytes(), "bytes of the tensor");
  if constexpr (kHasCuda) {
    if (from.device() == Device::Cuda) {
      cuda::enter_device(context.cuda().device().ordinal);  // perhaps another thread than the context's
      const cuda::Stream& stream = context.cuda().side_stream();
      stream.copy_to_host(host.data(), bytes_of(from) + first, static_cast<int64_t>(host.size()));
      return stream.synchronize();
    }
  }
  if (!host.empty()) std::memcpy(host.data(), bytes_of(from) + first, host.size());
}

}  // namespace tessera
