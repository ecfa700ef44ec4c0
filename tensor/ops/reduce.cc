#include "tensor/ops/reduce.h"

#include "tensor/has_cuda.h"
#include "tensor/ops/operand.h"
#include "tensor/ops/reduce_kernels.h"

namespace tessera {

void sum_of_squares(const Context& context, const ConstTensor& x, const Tensor& sum) {
  check_size(context, x, x.size(), x.dtype(), "sum_of_squares: x");
  check_operand(context, sum, {1}, DType::F64, "sum_of_squares: sum");
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::sum_of_squares(context, x, sum);
  }
  cpu::sum_of_squares(context, x, sum);
}

void sum_parts(const Context& context, const ConstTensor& x, const Tensor& sum) {
  check_size(context, x, x.size(), x.dtype(), "sum_parts: x");
  check_size(context, sum, sum.size(), sum.dtype(), "sum_parts: sum");
  TESSERA_CHECK(sum.dtype() == x.dtype() || sum.dtype() == accumulation_dtype(x.dtype()),
                "sum_parts: the sum has the dtype of x, or that in which it is added up");
  if (sum.size() == 0) return;
  TESSERA_CHECK(x.size() > 0 && x.size() % sum.size() == 0, "sum_parts: x has whole parts");
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::sum_parts(context, x, sum);
  }
  cpu::sum_parts(context, x, sum);
}

bool all_finite(const Context& context, const ConstTensor& x) {
  check_size(context, x, x.size(), x.dtype(), "all_finite: x");
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::all_finite(context, x);
  }
  return cpu::all_finite(context, x);
}

void add_column_sums(const Context& context, const ConstTensor& x, const Tensor& sums) {
  TESSERA_CHECK_EQ(x.rank(), 2, "add_column_sums: x is a matrix");
  check_size(context, x, x.size(), x.dtype(), "add_column_sums: x");
  check_operand(context, sums, {x.dim(1)}, accumulation_dtype(x.dtype()), "add_column_sums: sums");
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda) return cuda::add_column_sums(context, x, sums);
  }
  cpu::add_column_sums(context, x, sums);
}

}  // namespace tessera
