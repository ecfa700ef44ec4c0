#include "tensor/ops/quantise.h"

#include "tensor/has_cuda.h"
#include "tensor/ops/operand.h"
#include "tensor/ops/quantise_kernels.h"

namespace tessera {

void quantise(const Context& context, const ConstTensor& x, const Tensor& values, const Tensor& transposed,
              const Tensor& scale) {
  TESSERA_CHECK_EQ(x.rank(), 2, "quantise: x is a matrix");
  const int64_t rows = x.dim(0), columns = x.dim(1);
  TESSERA_CHECK(x.dtype() == DType::BF16 || x.dtype() == DType::F32,
                std::string("quantise: x is BF16 or F32, not ") + name(x.dtype()));
  TESSERA_CHECK(rows % kFloat8Multiple == 0 && columns % kFloat8Multiple == 0,
                "quantise: rows and columns of " + x.shape().str() + " are multiples of 16");
  const DType format = values.rank() == 2 ? values.dtype() : transposed.dtype();
  TESSERA_CHECK(is_float8(format), std::string("quantise: values are E4M3 or E5M2, not ") + name(format));
  check_size(context, x, rows * columns, x.dtype(), "quantise: x");
  if (values.rank() == 2) check_operand(context, values, {rows, columns}, format, "quantise: values");
  if (transposed.rank() == 2)
    check_operand(context, transposed, {columns, rows}, format, "quantise: transposed values");
  check_operand(context, scale, {1}, DType::F32, "quantise: scale");
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::quantise(context, x, values, transposed, scale);
  }
  cpu::quantise(context, x, values, transposed, scale);
}

}  // namespace tessera
