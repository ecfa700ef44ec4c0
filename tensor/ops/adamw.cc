#include "tensor/ops/adamw.h"

#include "tensor/has_cuda.h"
#include "tensor/ops/adamw_kernels.h"
#include "tensor/ops/operand.h"

namespace tessera {

void adamw(const Context& context, const AdamWStep& step, const ConstTensor& gradient, const Tensor& master,
           const Tensor& exp_avg, const Tensor& exp_avg_sq, const Tensor& compute) {
  const DType accumulation = accumulation_dtype(compute.dtype());
  TESSERA_CHECK(step.step >= 1, "adamw: steps count from 1");
  check_size(context, gradient, compute.size(), accumulation, "adamw: gradient");
  check_size(context, master, compute.size(), accumulation, "adamw: master");
  check_size(context, exp_avg, compute.size(), accumulation, "adamw: exp_avg");
  check_size(context, exp_avg_sq, compute.size(), accumulation, "adamw: exp_avg_sq");
  check_size(context, compute, compute.size(), compute.dtype(), "adamw: compute");
  if constexpr (kHasCuda) {
    if (context.device() == Device::Cuda)
      return cuda::adamw(context, step, gradient, master, exp_avg, exp_avg_sq, compute);
  }
  cpu::adamw(context, step, gradient, master, exp_avg, exp_avg_sq, compute);
}

}  // namespace tessera
