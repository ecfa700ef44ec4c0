#include "tensor/ops/columns.h"

#include "tensor/has_cuda.h"
#include "tensor/ops/columns_kernels.h"
#include "tensor/ops/operand.h"

namespace tessera {

void copy_columns(const Context& context, const ConstTensor& x, int64_t from, int64_t count, const Tensor& y,
                  int64_t to) {
  TESSERA_CHECK(x.rank() == 2 && y.rank() == 2, "copy_columns: x and y are matrices");
  check_operand(context, x, {y.dim(0), x.dim(1)}, x.dtype(), "copy_columns: x");
  check_size(context, y, y.size(), y.dtype(), "copy_columns: y");
  TESSERA_CHECK(count >= 0 && from >= 0 && from + count <= x.dim(1), "copy_columns: columns of x");
  TESSERA_CHECK(to >= 0 && to + count <= y.dim(1), "copy_columns: columns of y");
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::copy_columns(context, x, from, count, y, to);
  }
  cpu::copy_columns(context, x, from, count, y, to);
}

}  // namespace tessera
