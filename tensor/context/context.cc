#include "tensor/context/context.h"

#include <omp.h>

#include "tensor/context/matrix_library.h"
#include "tensor/context/runtime.h"
#include "tensor/has_cuda.h"

namespace tessera {
namespace {

std::shared_ptr<cuda::Runtime> make_runtime(const Context::Options& options) {
  if (options.device == Device::Cpu) return nullptr;
  if constexpr (kHasCuda) return std::make_shared<cuda::Runtime>(options.cuda_device);
  throw UsageError("this build has no CUDA kernels; configure with -DTESSERA_CUDA=ON, or choose the CPU");
}

}  // namespace

Context::Context(const Options& options)
    : device_(options.device),
      threads_(options.threads),
      cuda_(make_runtime(options)),
      workspace_("workspace", options.device, options.workspace_bytes),
      matrix_library_(std::make_unique<MatrixLibrary>()) {
  TESSERA_CHECK(threads_ >= 1, "a context has at least one thread");
  omp_set_num_threads(threads_);
  omp_set_dynamic(0);
}

Context::~Context() = default;

void Context::synchronize() const {
  if constexpr (kHasCuda) {
    if (device_ == Device::Cuda) cuda_->wait();
  }
}

int64_t Context::library_bytes() const {
  if constexpr (kHasCuda) {
    if (device_ == Device::Cuda) return cuda_->bytes();
  }
  return matrix_library_->scratchpad_bytes();
}

void Context::resize_workspace(int64_t bytes) {
  TESSERA_CHECK_EQ(workspace_.used(), int64_t{0}, "the workspace is in use");
  if (bytes != workspace_.capacity()) workspace_ = Arena("workspace", device_, bytes);
}

}  // namespace tessera
