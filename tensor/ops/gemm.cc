#include "tensor/ops/gemm.h"

namespace tessera {
struct MatrixLibrary::Implementation {};
MatrixLibrary::MatrixLibrary(int) {}
MatrixLibrary::~MatrixLibrary() = default;
}  // namespace tessera
