#include "tensor/memory/buffer.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "tensor/cuda/memory.h"
#include "tensor/has_cuda.h"

namespace tessera {
namespace {

constexpr int64_t kHugePage = int64_t{2} << 20;

}  // namespace

Buffer::Buffer(Device device, int64_t bytes, const std::string& what) : bytes_(bytes), device_(device) {
  if (bytes == 0) return;
  if constexpr (kHasCuda) {
    if (device == Device::Cuda) {
      data_ = cuda::allocate_device(bytes, what);
      return;
    }
  }
  TESSERA_CHECK(device == Device::Cpu, "this build allocates host memory only");
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) {
    bytes_ = 0;
    throw IoError("cannot allocate " + std::to_string(bytes) + " bytes of memory for " + what + ": " +
                  std::strerror(errno));
  }
  // Large pages save most of the address-translation misses of big matrix products; a refusal costs only speed.
  if (bytes >= 8 * kHugePage) madvise(data, bytes, MADV_HUGEPAGE);
  data_ = data;
}

Buffer::~Buffer() {
  if (data_ == nullptr) return;
  if constexpr (kHasCuda) {
    if (device_ == Device::Cuda) {
      cuda::free_device(data_);
      return;
    }
  }
  munmap(data_, bytes_);
}

}  // namespace tessera
