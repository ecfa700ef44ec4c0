#include "tensor/context.h"

#include <omp.h>

#include "tensor/ops/gemm.h"

namespace tessera {

Context::Context(const Options& options)
    : device_(options.device),
      threads_(options.threads),
      workspace_("workspace", options.device, options.workspace_bytes),
      matrix_library_(std::make_unique<MatrixLibrary>(options.threads)) {
  TESSERA_CHECK(threads_ >= 1, "a context has at least one thread");
  omp_set_num_threads(threads_);
  omp_set_dynamic(0);
}

Context::~Context() = default;

void Context::resize_workspace(int64_t bytes) {
  TESSERA_CHECK_EQ(workspace_.used(), int64_t{0}, "the workspace is in use");
  if (bytes != workspace_.capacity()) workspace_ = Arena("workspace", device_, bytes);
}

}  // namespace tessera
