#include "tensor/cuda/memory.h"

#include "tensor/check.h"

namespace tessera::cuda {

void refuse_allocation(int64_t bytes, const std::string& what, const DeviceRoom& room) {
  std::string message = "cannot allocate " + std::to_string(bytes) + " bytes of GPU memory for " + what + ": GPU " +
                        std::to_string(room.ordinal) + " (" + room.name + ") ";
  message += room.total > 0
                 ? "has " + std::to_string(room.free) + " of its " + std::to_string(room.total) + " bytes free"
                 : "is out of memory";
  throw DeviceMemoryError(message);
}

}  // namespace tessera::cuda
