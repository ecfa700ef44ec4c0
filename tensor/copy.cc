#include "tensor/copy.h"

#include <cstring>

#include "tensor/cuda/runtime.h"

namespace tessera {
namespace {

const std::byte* bytes_of(const ConstTensor& x) { return static_cast<const std::byte*>(x.data()); }

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
      stream.copy_to_host(to.data(), from.data(), from.bytes());
      return context.synchronize();
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
